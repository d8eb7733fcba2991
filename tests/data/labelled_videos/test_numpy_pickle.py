"""Pickles of arrays: sound ones of every protocol, and hostile ones, of which no code runs."""

import pickle
import struct

import numpy as np
import pytest

from midway.data.labelled_videos.numpy_pickle import read_numpy_pickle
from midway.errors import MidwayError

RNG = np.random.default_rng(0)
ARRAYS = {
    "bytes": RNG.integers(0, 256, (3, 8, 10, 3), dtype=np.uint8),
    "doubles": RNG.normal(size=(4, 3, 2)),
    "big_endian": RNG.normal(size=(4, 3)).astype(">f4"),
    "fortran": np.asfortranarray(RNG.normal(size=(4, 3))),
    "strided": RNG.normal(size=(4, 6))[:, ::2],
    "truth": RNG.random((4, 3)) < 0.5,
    "number": np.float64(3.5),
    "text": np.array(["ab", "c"]),
    "scalar": np.array(5),
    "empty": np.empty((0, 2)),
}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("name", ARRAYS)
def test_sound_pickles_are_read_as_python_does(tmp_path, name, protocol):
    array = ARRAYS[name]
    plain = [b"jpeg", b"", "s", 1, 2.5, None, True, (1, [2])]
    (tmp_path / "a.pkl").write_bytes(pickle.dumps({"x": array, "l": [array, *plain]}, protocol))
    found = read_numpy_pickle(tmp_path / "a.pkl")
    for each in (found["x"], found["l"][0]):
        np.testing.assert_array_equal(each, array)
        assert each.dtype == array.dtype
    assert found["l"][1:] == plain


def _global(module: str, name: str) -> bytes:
    return b"c" + f"{module}\n{name}\n".encode()


def _text(value: str) -> bytes:
    return b"\x8c" + bytes([len(value)]) + value.encode()


def _int(value: int) -> bytes:
    return b"J" + struct.pack("<i", value)


def _dtype(spec: str, *, subarray=b"N", names=b"N", fields=b"N", size=8) -> bytes:
    made = _global("numpy", "dtype") + _text(spec) + b"\x89\x88\x87R"
    state = b"(" + _int(3) + _text("|") + subarray + names + fields
    return made + state + _int(size) + _int(1) + _int(0) + b"tb"


def _array(dtype: bytes, raw: bytes, count: int = 4) -> bytes:
    made = _global("numpy.core.multiarray", "_reconstruct") + _global("numpy", "ndarray")
    made += _int(0) + b"\x85C\x01b\x87R"
    return (
        made
        + b"("
        + _int(1)
        + _int(count)
        + b"\x85"
        + dtype
        + b"\x89C"
        + bytes([len(raw)])
        + raw
        + b"tb"
    )


POINTERS = struct.pack("<Q", 0x4141414141414141) * 4
OBJECTS = _global("numpy", "dtype") + _text("O") + b"\x85R"
FIELD = {"names": _text("a") + b"\x85", "fields": b"}" + _text("a") + OBJECTS + _int(0) + b"\x86s"}
FAR = {**FIELD, "fields": b"}" + _text("a") + _dtype("f8") + _int(1 << 30) + b"\x86s"}
HOSTILE = {
    "objects over the file's bytes": _array(_dtype("O"), POINTERS),
    "a field of objects": _array(_dtype("V8", **FIELD), POINTERS),
    "a field beyond the array": _array(_dtype("V8", **FAR), POINTERS),
    "a subarray of objects": _array(
        _dtype("V8", subarray=OBJECTS + _int(1) + b"\x85\x86"), POINTERS
    ),
    "elements larger than the bytes": _array(_dtype("S8", size=1 << 28), POINTERS[:8]),
    "a number of objects": _global("numpy.core.multiarray", "scalar")
    + OBJECTS
    + b"C\x08"
    + POINTERS[:8]
    + b"\x86R",
    "a call of ndarray": _global("numpy", "ndarray")
    + _int(1)
    + b"\x85"
    + OBJECTS
    + b"C\x08"
    + POINTERS[:8]
    + b"\x87R",
    "another size than the shape": _array(_dtype("f8"), POINTERS, 1 << 30),
    "NumPy's own type changed": _dtype("f8"),
    "attributes of a function": _global("_codecs", "encode")
    + b"N}"
    + _text("__defaults__")
    + b"N\x85s\x86b",
    "another function": _global("os", "system") + _text("true") + b"\x85R",
    "another function of NumPy": _global("numpy.core.numeric", "fromfunction")
    + _text("x")
    + b"\x85R",
    "an instance": b"(" + _text("x") + b"ios\nsystem\n",
    "a memo of gigabytes": b"Nr" + struct.pack("<I", (1 << 32) - 1),
    "bytes beyond the file": b"\x8e" + struct.pack("<Q", 5 << 30) + b"abc",
    "a bytearray beyond the file": b"\x96" + struct.pack("<Q", 5 << 30) + b"abc",
    "a frame beyond the file": b"\x95" + struct.pack("<Q", 1 << 40) + b"N",
    "keys of nested tuples": b"}N" + b"\x85" * 1_000_000 + b"Ns",
    "nested lists": b"]" * 100_000 + b"a" * 99_999,
    "a list that contains itself": b"]\x94h\x00a",
    "an integer of a million digits": b"I" + b"9" * 1_000_000 + b"\n",
    "nothing": b"",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused_in_one_line(tmp_path, name):
    path = tmp_path / "evil.pkl"
    path.write_bytes(b"\x80\x05" + HOSTILE[name] + b".")
    if name in ("a memo of gigabytes", "a frame beyond the file"):
        assert read_numpy_pickle(path) is None
        return
    with pytest.raises(MidwayError, match=r"evil\.pkl: (refused|incomplete)") as error:
        read_numpy_pickle(path)
    assert "\n" not in str(error.value)
    assert np.dtype("f8") == np.dtype("<f8")
