"""Pickles of plain values and NumPy arrays, read without running what else they ask for."""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from midway.errors import MidwayError


def _encode(text: str, encoding: str) -> bytes:
    """Bytes as Python 2 protocols hold them; no other codec is looked up."""
    if encoding not in ("latin1", "latin-1"):
        raise pickle.UnpicklingError(f"codec {encoding}")
    return codecs.latin_1_encode(text)[0]


_MAKERS = {
    "_reconstruct": np.empty(0).__reduce__()[0],
    "scalar": np.float64(0).__reduce__()[0],
    "_frombuffer": np.empty(1).__reduce_ex__(5)[0],
}
_ALLOWED: dict[tuple[str, str], Any] = {
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
    ("_codecs", "encode"): _encode,
    # NumPy 2 has renamed the module that pickles of NumPy 1 name.
    **{
        (f"numpy.{core}.{module}", name): maker
        for core in ("core", "_core")
        for module in ("multiarray", "numeric")
        for name, maker in _MAKERS.items()
    },
}


class _Reader(pickle.Unpickler):
    """Refuses everything but arrays before it is called."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_numpy_pickle(path: Path) -> Any:
    """Contents of a pickle of dicts, lists, plain values and NumPy arrays.

    Raises:
        MidwayError: No such file, no pickle, or one that asks for anything else, which could run
            code.

    """
    try:
        with path.open("rb") as file:
            return _Reader(file).load()
    except OSError as error:
        raise MidwayError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except pickle.UnpicklingError as error:
        asked = " ".join(str(error).split())  # some of its messages have two lines
        raise MidwayError(
            f"{path}: not read, its pickle asks for more than arrays ({asked}), which could run "
            "code, or is damaged; fetch it again or save its arrays as .npz"
        ) from None
    except (EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError) as error:
        raise MidwayError(f"{path}: no whole pickle ({error}); fetch it again") from None
