"""openpi's messages: msgpack with arrays as marked maps. Nothing in one runs code, and none takes
more memory than a small multiple of its own length.

The markers are those of `openpi_client.msgpack_numpy`; arrays of objects, records and complex
numbers are refused on both sides. Needs NumPy and msgpack alone.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

MOST_ITEMS = 20_000
"""Numbers, texts, arrays, lists and maps of one message; an array counts as nine."""
DEEPEST = 16
"""Lists and maps inside each other."""
MOST_AXES = 32
"""Axes of an array."""
LARGEST = 32 * 2**20
"""Bytes of a message, unless a server or a client says otherwise."""

_ARRAY, _SCALAR = b"__ndarray__", b"__npgeneric__"
_REFUSED = "VOc"
"""Kinds of NumPy types that the protocol refuses: records, objects, complex numbers."""
_DTYPE = re.compile(r"[<>|=]?(?:[biuf](?:1|2|4|8|16)|[US][1-9][0-9]{0,3})")
"""Types of arrays: truth values, numbers, and texts of some length."""
_FIXED = {
    **dict.fromkeys((0xC0, 0xC2, 0xC3), 0),
    **dict.fromkeys((0xCC, 0xD0), 1),
    **dict.fromkeys((0xCD, 0xD1), 2),
    **dict.fromkeys((0xCA, 0xCE, 0xD2), 4),
    **dict.fromkeys((0xCB, 0xCF, 0xD3), 8),
}
"""First byte of nil, a truth value or a number -> bytes that follow."""
_BYTES = {0xC4: 1, 0xC5: 2, 0xC6: 4, 0xD9: 1, 0xDA: 2, 0xDB: 4}
"""First byte of bytes or text -> bytes of its length."""
_MANY = {0xDC: (2, 1), 0xDD: (4, 1), 0xDE: (2, 2), 0xDF: (4, 2)}
"""First byte of a list or map -> bytes of its length, items per entry."""


class MessageError(ValueError):
    """A message that cannot be read; says why, and which entry of it is wrong."""


def packed(message: Any) -> bytes:
    """A message as bytes.

    Raises:
        ValueError: an array of objects, records or complex numbers.
        TypeError: something that msgpack does not know.
    """
    import msgpack

    data: Any = msgpack.packb(message, default=_marked)
    return data


def _marked(value: Any) -> Any:
    """An array or a NumPy number as the map that stands for it."""
    if not isinstance(value, np.ndarray | np.generic):
        raise TypeError(f"a {type(value).__name__} cannot be sent")
    if value.dtype.kind in _REFUSED:
        raise ValueError(f"an array of {value.dtype} cannot be sent: send numbers.")
    if isinstance(value, np.ndarray):
        content = {b"data": value.tobytes(), b"dtype": value.dtype.str, b"shape": value.shape}
        return {_ARRAY: True, **content}
    return {_SCALAR: True, b"data": value.item(), b"dtype": value.dtype.str}


def unpacked(data: bytes) -> Any:
    """What was packed; arrays are read-only views of `data`.

    Raises:
        MessageError: it is cut off, nested too deep, of too many items, or holds what the protocol
            refuses; names the entry where it is an array.
    """
    import msgpack

    _check_structure(data)
    try:
        plain = msgpack.unpackb(data)
    except (ValueError, TypeError) as error:
        raise MessageError(f"the message is not msgpack as openpi writes it: {error}.") from error
    return _restored(plain, "")


class _Piece(NamedTuple):
    """One item of a message as it lies in the bytes."""

    head: int
    """Bytes of its first byte and its length."""
    payload: int
    """Bytes that follow."""
    items: int
    """Items that follow: those of a list or a map."""


def _check_structure(data: bytes) -> None:
    """Whether a message is whole, shallow and of few items, before anything is made of it: a list
    of a million empty maps is a megabyte on the way, and a hundred in memory."""
    at, count = 0, 0
    left = [1]
    while left:
        if left[-1] == 0:
            left.pop()
            continue
        left[-1] -= 1
        piece = _piece(data, at)
        count += 1
        if count + piece.items > MOST_ITEMS:
            raise MessageError(
                f"the message has more than {MOST_ITEMS} items: send arrays, not lists."
            )
        if piece.items:
            left.append(piece.items)
        if len(left) > DEEPEST:
            raise MessageError(f"the message is nested more than {DEEPEST} deep.")
        at += piece.head + piece.payload
        if at > len(data):
            raise _cut_off(data)
    if at != len(data):
        raise MessageError(f"{len(data) - at} bytes lie behind the end of the message.")


def _piece(data: bytes, at: int) -> _Piece:
    """The item that begins at a place."""
    if at >= len(data):
        raise _cut_off(data)
    first = data[at]
    if first <= 0x7F or first >= 0xE0:
        return _Piece(1, 0, 0)
    if first <= 0x8F:
        return _Piece(1, 0, 2 * (first & 0x0F))
    if first <= 0x9F:
        return _Piece(1, 0, first & 0x0F)
    if first <= 0xBF:
        return _Piece(1, first & 0x1F, 0)
    if first in _FIXED:
        return _Piece(1, _FIXED[first], 0)
    if first in _BYTES:
        size = _BYTES[first]
        return _Piece(1 + size, _length(data, at + 1, size), 0)
    if first in _MANY:
        size, per_entry = _MANY[first]
        return _Piece(1 + size, 0, per_entry * _length(data, at + 1, size))
    raise MessageError(
        f"byte {at} of the message, 0x{first:02x}, begins nothing that openpi sends: no extension "
        "types."
    )


def _length(data: bytes, at: int, size: int) -> int:
    if at + size > len(data):
        raise _cut_off(data)
    return int.from_bytes(data[at : at + size], "big")


def _cut_off(data: bytes) -> MessageError:
    return MessageError(f"the message is cut off: it has {len(data)} bytes, and more were to come.")


def _restored(value: Any, where: str) -> Any:
    """Plain values with their arrays."""
    if isinstance(value, list):
        return [_restored(each, f"{where}[{i}]") for i, each in enumerate(value)]
    if not isinstance(value, Mapping):
        return value
    if _ARRAY in value:
        return _array(value, where)
    if _SCALAR in value:
        return _scalar(value, where)
    return {key: _restored(each, _below(where, key)) for key, each in value.items()}


def _below(where: str, key: Any) -> str:
    name = key if isinstance(key, str) else repr(key)
    return f"{where}.{name}" if where else name


def _array(marked: Mapping[Any, Any], where: str) -> np.ndarray:
    dtype, shape, data = _dtype(marked, where), _shape(marked, where), marked.get(b"data")
    if not isinstance(data, bytes):
        raise _wrong(where, "holds no bytes")
    size = dtype.itemsize * math.prod(shape)
    if size != len(data):
        raise _wrong(where, f"has {len(data)} bytes; {dtype.str} of shape {shape} has {size}")
    return np.ndarray(shape, dtype, data)


def _shape(marked: Mapping[Any, Any], where: str) -> tuple[int, ...]:
    shape = marked.get(b"shape")
    if isinstance(shape, list) and len(shape) <= MOST_AXES and all(map(_is_length, shape)):
        return tuple(shape)
    raise _wrong(where, f"has the shape {_short(shape)}, which is none")


def _is_length(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**31


def _scalar(marked: Mapping[Any, Any], where: str) -> Any:
    dtype, data = _dtype(marked, where), marked.get(b"data")
    if not isinstance(data, bool | int | float | str | bytes):
        raise _wrong(where, "holds no number")
    try:
        return dtype.type(data)
    except (ValueError, TypeError, OverflowError) as error:
        raise _wrong(where, f"holds no {dtype.str}: {error}") from error


def _dtype(marked: Mapping[Any, Any], where: str) -> np.dtype:
    name = marked.get(b"dtype")
    if isinstance(name, str) and _DTYPE.fullmatch(name):
        try:
            return np.dtype(name)
        except TypeError:  # a size that there is no number of
            pass
    raise _wrong(
        where,
        f"has the type {_short(name)}; arrays of truth values, whole numbers, floats or text can "
        "be sent, no objects, records or complex numbers",
    )


def _wrong(where: str, what: str) -> MessageError:
    return MessageError(f"the array {where!r} {what}." if where else f"the array {what}.")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
