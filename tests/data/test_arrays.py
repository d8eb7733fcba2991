"""Arrays of `.npy` and `.npz` files: sound ones, and refused ones."""

import io
import struct
import zipfile

import numpy as np
import pytest

from midway.data.arrays import read_npy, read_npz

SOUND = np.arange(24.0).reshape(2, 3, 4)


def npy(header: str, data: bytes = b"") -> bytes:
    text = header.encode()
    text += b" " * (-(len(text) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + data


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


@pytest.mark.parametrize("array", [SOUND, SOUND.T, SOUND.astype(">i2"), np.array(3), SOUND > 3])
def test_sound_arrays_are_read_as_numpy_does(tmp_path, array):
    data = saved(array)
    found = read_npy(io.BytesIO(data), len(data))
    np.testing.assert_array_equal(found, array)
    assert found.dtype == array.dtype
    np.savez_compressed(tmp_path / "a.npz", a=array, b=SOUND)
    np.testing.assert_array_equal(read_npz(tmp_path / "a.npz", ["a", "none"])["a"], array)


HEADER = "{'descr': '%s', 'fortran_order': False, 'shape': %s, }"
WRONG = {
    "objects": saved(np.array([None])),
    "records": saved(np.zeros(3, [("a", "f4")])),
    "huge": npy(HEADER % ("|u1", "(1000000, 1000000, 1000000, 3)")),
    "huge overflow": npy(HEADER % ("<f4", "(4294967296, 4294967296, 2)")),
    "negative": npy(HEADER % ("<f4", "(-1, -4, 2)"), bytes(32)),
    "long text": npy(HEADER % ("<U2000000000", "(1, 1, 2)")),
    "short": saved(SOUND)[:-8],
    "deep": npy("(" * 9000),
    "code": npy("__import__('os').system('true')"),
    "version": b"\x93NUMPY\x09\x00" + bytes(100),
    "text": b"hello",
    "empty": b"",
}


@pytest.mark.parametrize("name", WRONG)
def test_other_arrays_are_refused(tmp_path, name):
    with pytest.raises((ValueError, EOFError)):
        read_npy(io.BytesIO(WRONG[name]), len(WRONG[name]))
    with zipfile.ZipFile(tmp_path / "a.npz", "w") as archive:
        archive.writestr("a.npy", WRONG[name])
    with pytest.raises(ValueError, match=r"."):
        read_npz(tmp_path / "a.npz", ["a"])


def test_a_small_archive_of_a_large_array_is_refused_before_it_is_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "bomb.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy(HEADER % ("|u1", "(3, 1073741824)")))
    data = bytearray((tmp_path / "bomb.npz").read_bytes())
    # The directory of the archive states what the header needs.
    at = data.rindex(b"PK\x01\x02")
    size = 128 + 3 * 1073741824
    data[at + 24 : at + 28] = struct.pack("<I", size)
    (tmp_path / "bomb.npz").write_bytes(data)
    with pytest.raises(ValueError, match=r"an array of 3\.0 GiB"):
        read_npz(tmp_path / "bomb.npz", ["a"])
