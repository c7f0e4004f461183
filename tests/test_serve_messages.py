"""openpi's messages: the same bytes as its client's, and nothing else is taken for one."""

import tracemalloc

import numpy as np
import pytest

pytest.importorskip("msgpack")
import msgpack

from exporl.serve.messages import DEEPEST, MOST_ITEMS, MessageError, packed, unpacked

MESSAGE = {
    "state": np.arange(3, dtype=np.float32),
    "n": np.int64(7),
    "prompt": "go",
    "image": np.zeros((2, 1, 3), np.uint8),
}
BYTES = bytes.fromhex(
    "84a5737461746584c40b5f5f6e6461727261795f5fc3c40464617461c40c000000000000803f00000040c405647479"
    "7065a33c6634c40573686170659103a16e83c40d5f5f6e7067656e657269635f5fc3c4046461746107c40564747970"
    "65a33c6938a670726f6d7074a2676fa5696d61676584c40b5f5f6e6461727261795f5fc3c40464617461c406000000"
    "000000c4056474797065a37c7531c405736861706593020103"
)
"""What openpi-client 0.1.2 makes of it."""


def test_the_bytes_are_those_of_openpi():
    assert packed(MESSAGE) == BYTES
    read = unpacked(BYTES)
    assert read.keys() == MESSAGE.keys()
    for name, value in MESSAGE.items():
        np.testing.assert_array_equal(read[name], value)
        assert getattr(read[name], "dtype", None) == getattr(value, "dtype", None)


@pytest.mark.parametrize(
    "value",
    [
        np.zeros((0, 4), np.float64),
        np.array(3.5, np.float16),
        np.array([True, False]),
        np.array(["a", "bcd"]),
        np.array([b"a"]),
        np.arange(6, dtype=">i2").reshape(2, 3)[:, ::-1],
        np.float32(2.5),
        np.bool_(True),
        None,
        -(2**40),
        "x" * 70_000,
        b"y" * 300,
        list(range(20)),
        {"a": {"b": [1.5, {"c": np.ones(2)}]}},
    ],
    ids=repr,
)
def test_what_is_sent_arrives(value):
    read = unpacked(packed({"x": value}))["x"]
    np.testing.assert_equal(read, value)
    if isinstance(value, np.ndarray):
        assert read.dtype == value.dtype and read.shape == value.shape
        assert value.size == 0 or not read.flags.writeable


@pytest.mark.parametrize("value", [np.array([print]), np.zeros(1, "f4,i4"), np.complex64(1)])
def test_objects_records_and_complex_numbers_are_not_sent(value):
    with pytest.raises(ValueError, match="cannot be sent"):
        packed({"x": value})


def test_other_things_are_not_sent():
    with pytest.raises(TypeError, match="a object cannot be sent"):
        packed({"x": object()})


def marked(dtype="<f4", shape=(1,), data=b"\0" * 4, kind=b"__ndarray__"):
    return {kind: True, b"data": data, b"dtype": dtype, b"shape": shape}


SCALAR = {"kind": b"__npgeneric__"}


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (marked("|O"), r"the array 'x\.y' has the type '\|O'; .* no objects, records or complex"),
        (marked("|V4"), r"has the type '\|V4'"),
        (marked("<c8"), r"has the type '<c8'"),
        (marked("<f4,<i4"), r"has the type '<f4,<i4'"),
        (marked("<f3"), r"has the type '<f3'"),
        (marked("<b2"), r"has the type '<b2'"),
        (marked("<U99999"), r"has the type '<U99999'"),
        (marked("<U0"), r"has the type '<U0'"),
        (marked(b"<f4"), r"has the type b'<f4'"),
        (marked(None), r"has the type None"),
        (marked([["a", "<f4"]]), r"has the type \[\["),
        (marked(shape=(-1,)), r"has the shape \[-1\], which is none"),
        (marked(shape=(1.0,)), r"has the shape \[1.0\]"),
        (marked(shape=(True,)), r"has the shape \[True\]"),
        (marked(shape=(2**31,)), r"has the shape \[2147483648\]"),
        (marked(shape=(1,) * 33), r"has the shape \[1, 1,"),
        (marked(shape=3), r"has the shape 3"),
        (marked(shape=(2**30,) * 4), r"has 4 bytes; <f4 of shape \(1073741824, .* has 5\d+"),
        (marked(shape=(2,)), r"has 4 bytes; <f4 of shape \(2,\) has 8"),
        (marked(data="text"), r"holds no bytes"),
        (marked(data=None), r"holds no bytes"),
        (marked("|i1", data=400, **SCALAR), r"holds no \|i1: "),
        (marked("<f4", data="abc", **SCALAR), r"holds no <f4: "),
        (marked("<f4", data=[1.0], **SCALAR), r"holds no number"),
        (marked("|O", data=1, **SCALAR), r"has the type '\|O'"),
    ],
)
def test_an_array_that_is_none_is_named(array, said):
    with pytest.raises(MessageError, match=said):
        unpacked(msgpack.packb({"x": {"y": array}}))


def test_every_beginning_of_a_message_is_cut_off():
    for length in range(len(BYTES)):
        with pytest.raises(MessageError, match=f"is cut off: it has {length} bytes"):
            unpacked(BYTES[:length])


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (BYTES + b"\0\0", "2 bytes lie behind the end"),
        (b"\xc1", "0xc1, begins nothing"),
        (msgpack.packb(msgpack.ExtType(5, b"abc")), "no extension types"),
        (msgpack.packb(msgpack.Timestamp(1, 2)), "no extension types"),
        (b"\x91" * (DEEPEST + 1) + b"\xc0", f"nested more than {DEEPEST} deep"),
        (b"\x91" * 10_000_000, f"nested more than {DEEPEST} deep"),
        (b"\xdd\xff\xff\xff\xff" + b"\x80" * 10_000_000, f"more than {MOST_ITEMS} items"),
        ((b"\xdc\x04\x00" + b"\x80" * 2**10) * 600, "bytes lie behind the end"),
        (b"\xdf\x7f\xff\xff\xff", f"more than {MOST_ITEMS} items"),
        (b"\x81\x01\x01", "is not msgpack as openpi writes it"),
        (b"\x81\xa1\xff\x01", "is not msgpack as openpi writes it"),
        (b"\x81\x90\x01", "is not msgpack as openpi writes it"),
        (b"", "is cut off"),
    ],
)
def test_hostile_bytes_end_in_a_sentence_and_take_no_memory(data, said):
    tracemalloc.start()
    try:
        with pytest.raises(MessageError, match=said):
            unpacked(data)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


def test_many_items_take_little_memory():
    lists = [[{}] * 100 for _ in range(20)]
    tracemalloc.start()
    try:
        assert len(unpacked(msgpack.packb(lists))) == len(lists)
        assert tracemalloc.get_traced_memory()[1] < 2**21
    finally:
        tracemalloc.stop()
