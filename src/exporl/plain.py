"""Options from plain JSON values: every value checked against its annotation.

An option that a later version of the library added says what a file without it means:
`guard: ... = added("off", absent="off")`. So a run of an earlier version goes on, and is evaluated,
as it was made, whatever the default is by now.
"""

import dataclasses
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, TypeVar

from exporl.outside import OutsideName, is_outside
from exporl.suggest import closest

_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    type(None): "null",
    OutsideName: "MODULE:ATTRIBUTE",
}
"""What values of an annotation are called."""
ABSENT = "absent"
"""Metadata of an option's field: the value that a file without the option stands for."""


def added(default: Any, *, absent: Any) -> Any:
    """A field of an options class that earlier versions did not have.

    Args:
        default: its default.
        absent: the value that does what the versions without it did.
    """
    return dataclasses.field(default=default, metadata={ABSENT: absent})


def from_plain(
    kind: Any, value: Any, where: str = "", generics: Mapping[Any, type] | None = None
) -> Any:
    """A value of the kind that an annotation says, from what JSON holds.

    Args:
        kind: a dataclass, or the annotation of one of its fields.
        value: the plain value.
        where: its dotted name, for messages.
        generics: what type variables stand for.

    Raises:
        ValueError: unknown or missing options, or a value of the wrong type; names the option.
    """
    return _parse(kind, value, where, generics or {})


def dotted(table: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of nested tables by their dotted names; lists as tuples, which options are.

    Args:
        table: of TOML or JSON.
        prefix: what every name begins with.
    """
    for key, value in table.items():
        name = f"{prefix}{key}"
        if isinstance(value, dict):
            yield from dotted(value, f"{name}.")
        else:
            yield name, tuple(value) if isinstance(value, list) else value


def _parse(kind: Any, value: Any, where: str, generics: Mapping[Any, type]) -> Any:
    """A value of the kind that an option's annotation says."""
    kind = generics.get(kind, kind) if isinstance(kind, TypeVar) else kind
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _parse_options(kind, value, where, generics)
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        return _parse_any(args, value, where, generics)
    if origin is tuple and isinstance(value, (list, tuple)):
        return tuple(_parse(args[0], item, where, generics) for item in value)
    elif (origin is Literal and value in args) or (
        kind is OutsideName and isinstance(value, str) and is_outside(value)
    ):
        return value
    elif kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    elif kind in (int, bool, str, type(None)) and type(value) is kind:
        return value
    raise ValueError(f"config option {where!r} must be {_in_words(kind)}, got {value!r}.")


def _parse_any(kinds: Sequence[Any], value: Any, where: str, generics: Mapping[Any, type]) -> Any:
    """A value of the first kind that it fits."""
    for kind in kinds:
        try:
            return _parse(kind, value, where, generics)
        except ValueError:
            continue
    names = " or ".join(map(_in_words, kinds))
    raise ValueError(f"config option {where!r} must be {names}, got {value!r}.")


def _in_words(kind: Any) -> str:
    """What an annotation asks for, without the words of a program."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if origin is Literal:
        values = ", ".join(map(repr, args))
        return values if len(args) == 1 else f"one of {values}"
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(_in_words, args))
    if origin is tuple:
        return f"a list, each entry {_in_words(args[0])}"
    return _WORDS.get(kind, str(kind))


def _parse_options(kind: type, value: Any, where: str, generics: Mapping[Any, type]) -> Any:
    """The options of one dataclass: all of them, but for those added since, and no others."""
    hints, prefix = typing.get_type_hints(kind), f"{where}." if where else ""
    if not isinstance(value, dict):
        raise ValueError(f"config option {where!r} must be an object, got {value!r}.")
    for name in value:
        if name not in hints:
            raise ValueError(f"unknown config option {prefix + name!r}. {closest(name, hints)}")
    given = {name: _parse(hints[name], v, prefix + name, generics) for name, v in value.items()}
    absent = [field for field in dataclasses.fields(kind) if field.name not in value]
    missing = sorted(field.name for field in absent if ABSENT not in field.metadata)
    if missing:
        raise ValueError(
            f"config lacks {prefix + missing[0]!r}: it was written by another version."
        )
    return kind(**given, **{field.name: field.metadata[ABSENT] for field in absent})
