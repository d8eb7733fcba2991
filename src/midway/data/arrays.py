"""NumPy arrays from files of unknown origin: bytes, `.npy` and `.npz`.

NumPy's readers reserve the memory that a header asks for, and accept records and objects. Here only
plain types are accepted, and the size in a header must match the bytes before an array is made.
"""

import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

MAX_BYTES = 2**31
"""Maximum size of an array in memory, about 340 frames of 1920 x 1080 pixels."""
_PLAIN = re.compile(r"[<>|=]?(?:b1|\?|[iu][1248]|f[248]|[SU][0-9]{1,4})")
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}


def plain_type(spec: object) -> np.dtype[Any]:
    """Return the type that a specification such as "<f4" names: numbers, booleans or text.

    Raises:
        ValueError: Another type, such as records or objects.
    """
    if not isinstance(spec, str) or not _PLAIN.fullmatch(spec):
        raise ValueError(f"arrays of type {str(spec)[:40]}")
    return np.dtype(spec)


def array_of(
    raw: bytes | bytearray, dtype: np.dtype[Any], shape: Sequence[object], *, fortran: bool = False
) -> NDArray[Any]:
    """Return a copy of the bytes as an array.

    Args:
        raw: Values of the array, without a header.
        dtype: A plain type.
        shape: Numbers of elements; their product must match the bytes.
        fortran: If True, the first index varies fastest.

    Raises:
        ValueError: The shape is invalid, or contradicts the number of bytes.
    """
    sides = _checked(dtype, shape, len(raw))
    return np.frombuffer(raw, dtype).reshape(sides, order="F" if fortran else "C").copy(order="K")


def read_npy(file: IO[bytes], num_bytes: int) -> NDArray[Any]:
    """Read an array of a plain type in the format of `.npy`.

    Args:
        file: File that is open at its beginning.
        num_bytes: Size of the file.

    Raises:
        ValueError: The file is not an array, has another type, or contradicts its header in size.
        EOFError: The file ends in its header.
    """
    version = npy.read_magic(file)
    if version not in _HEADERS:
        raise ValueError(f"version {version[0]}.{version[1]} of .npy")
    try:
        shape, fortran, dtype = _HEADERS[version](file)
    except Exception as error:  # Python's parser raises many kinds
        raise ValueError(f"damaged header ({type(error).__name__})") from None
    dtype = plain_type(dtype.str if dtype.names is None else "records")
    left = num_bytes - file.tell()
    _checked(dtype, shape, left)  # before the bytes are read
    return array_of(file.read(left), dtype, shape, fortran=fortran)


def read_npz(file: Path | IO[bytes], names: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Read some arrays of a `.npz` archive; names that are not in it are left out.

    Raises:
        ValueError: The file is not an archive, is damaged, or has an array of a type or size that
            is not allowed.
        OSError: The file cannot be read.
    """
    found = {}
    try:
        with zipfile.ZipFile(file) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in names:
                if name in members:  # NumPy would read it in place of the array
                    raise ValueError(f"{name} is no array")
                info = members.get(f"{name}.npy")
                if info is not None:
                    with archive.open(info) as member:
                        found[name] = read_npy(member, info.file_size)
    except OSError:
        raise
    except Exception as error:  # zipfile and zlib raise many kinds for damaged archives
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise ValueError(reason) from None
    return found


def _checked(dtype: np.dtype[Any], shape: Sequence[object], num_bytes: int) -> list[int]:
    sides = [side for side in shape if type(side) is int and side >= 0]
    if len(sides) != len(shape) or len(sides) > 8:
        raise ValueError(f"an array of shape {str(shape)[:60]}")
    needed = math.prod(sides) * dtype.itemsize
    if needed != num_bytes:
        raise ValueError(f"{num_bytes} bytes for an array that needs {str(needed)[:20]}")
    if needed > MAX_BYTES:
        raise ValueError(f"an array of {needed / 2**30:.1f} GiB, above {MAX_BYTES >> 30}")
    return sides
