"""Safe reader of pickles that contain only plain values and NumPy arrays."""

import codecs
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from midway.errors import MidwayError


def _encode(text: str, encoding: str) -> bytes:
    """Encode text as Latin-1, as pickles of Python 2 require; refuse other codecs."""
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
    # NumPy 2 renamed `numpy.core`, which pickles of NumPy 1 refer to.
    **{
        (f"numpy.{core}.{module}", name): maker
        for core in ("core", "_core")
        for module in ("multiarray", "numeric")
        for name, maker in _MAKERS.items()
    },
}


class _Reader(pickle.Unpickler):
    """Unpickler that refuses any global except those of NumPy arrays."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise pickle.UnpicklingError(f"{module}.{name}")
        return _ALLOWED[module, name]


def read_numpy_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, plain values and NumPy arrays.

    Raises:
        MidwayError: The file is missing or not a pickle, or refers to other objects, which could
            run code.

    """
    try:
        with path.open("rb") as file:
            return _Reader(file).load()
    except OSError as error:
        raise MidwayError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except pickle.UnpicklingError as error:
        refused = " ".join(str(error).split())  # some messages have two lines
        raise MidwayError(
            f"{path}: refused, because its pickle is damaged or refers to more than arrays "
            f"({refused}), which could run code; fetch it again or save its arrays as .npz"
        ) from None
    except (EOFError, ValueError, TypeError, AttributeError, LookupError, MemoryError) as error:
        raise MidwayError(f"{path}: incomplete pickle ({error}); fetch it again") from None
