"""Safe reader of pickles that contain only plain values and NumPy arrays.

NumPy's own functions read or write any memory if a pickle chooses their arguments. So none is
called here: placeholders record what the pickle asks for, and `array_of` makes the arrays of plain
types from the bytes in the file.
"""

import codecs
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np
from numpy.typing import NDArray

from midway.data.arrays import array_of, plain_type
from midway.errors import MidwayError

_PythonUnpickler: Any = vars(pickle)["_Unpickler"]
_OPCODES = (
    *("PROTO", "FRAME", "STOP", "MARK", "POP", "POP_MARK", "DUP"),
    *("NONE", "NEWTRUE", "NEWFALSE", "INT", "BININT", "BININT1", "BININT2"),
    *("LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
    *("UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("EMPTY_TUPLE", "TUPLE", "TUPLE1", "TUPLE2", "TUPLE3", "EMPTY_LIST", "LIST"),
    *("APPEND", "APPENDS", "EMPTY_DICT", "GLOBAL", "STACK_GLOBAL"),
    *("PUT", "BINPUT", "LONG_BINPUT", "GET", "BINGET", "LONG_BINGET", "MEMOIZE"),
)
"""Opcodes of values, lists, tuples and the memo, read as Python does."""
_CODES = [getattr(pickle, name)[0] for name in _OPCODES]
_VALUES = (str, bytes, bytearray, int, float, np.generic, np.ndarray)


def read_numpy_pickle(path: Path) -> Any:
    """Read a pickle of dicts, lists, tuples, plain values and NumPy arrays of plain types.

    Raises:
        MidwayError: The file is missing or not a pickle, or refers to other objects, which could
            run code.

    """
    try:
        with path.open("rb") as file:
            return _values(_Reader(_Bounded(file, path.stat().st_size)).load(), {})
    except OSError as error:
        raise MidwayError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except _RefusedError as error:
        raise MidwayError(
            f"{path}: refused, because its pickle is damaged or refers to more than arrays "
            f"({error}), which could run code; fetch it again or save its arrays as .npz"
        ) from None
    except Exception as error:  # a damaged pickle can raise any
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MidwayError(f"{path}: incomplete pickle ({reason}); fetch it again") from None


class _RefusedError(Exception):
    """Error for a pickle with more than plain values and arrays."""


class _Type:
    """Placeholder for a dtype."""

    def __init__(self, spec: object, align: object = False, copy: object = False) -> None:
        self.dtype = _plain(spec)

    def set_state(self, state: Any) -> None:
        # Version, byte order, then subarray, names and fields, which a plain type does not have.
        if not (isinstance(state, tuple) and len(state) == 8 and state[2:5] == (None, None, None)):
            raise _RefusedError("arrays of records")
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """Placeholder for an array that is not filled yet."""

    value: NDArray[Any] | None = None

    def set_state(self, state: Any) -> None:
        if not (isinstance(state, tuple) and len(state) == 5):
            raise _RefusedError("an array of another kind")
        _, shape, kind, fortran, raw = state
        self.value = _frombuffer(raw, kind, shape, "F" if fortran else "C")


def _plain(spec: object) -> np.dtype[Any]:
    try:
        return plain_type(spec)
    except ValueError as error:
        raise _RefusedError(str(error)) from None


def _frombuffer(raw: object, kind: object, shape: object, order: object = "C") -> NDArray[Any]:
    if not isinstance(kind, _Type) or not isinstance(raw, bytes | bytearray):
        raise _RefusedError("an array of objects")
    if not isinstance(shape, tuple):
        raise _RefusedError("an array without a shape")
    return array_of(raw, kind.dtype, shape, fortran=order == "F")


def _reconstruct(kind: object, shape: object, code: object) -> _Array:
    return _Array()


def _scalar(kind: object, raw: object) -> Any:
    return _frombuffer(raw, kind, ())[()]


def _encode(text: str, encoding: str) -> bytes:
    """Encode text as Latin-1, as pickles of Python 2 require; refuse other codecs."""
    if encoding not in ("latin1", "latin-1"):
        raise _RefusedError(f"codec {encoding}")
    return codecs.latin_1_encode(text)[0]


def _no_bytes() -> bytes:
    return b""


_MAKERS = {"_reconstruct": _reconstruct, "scalar": _scalar, "_frombuffer": _frombuffer}
_ALLOWED: dict[tuple[str, str], Callable[..., Any] | None] = {
    ("numpy", "ndarray"): None,  # only an argument of `_reconstruct`
    ("numpy", "dtype"): _Type,
    ("_codecs", "encode"): _encode,
    ("__builtin__", "bytes"): _no_bytes,
    # NumPy 2 renamed `numpy.core`, which pickles of NumPy 1 refer to.
    **{
        (f"numpy.{core}.{module}", name): maker
        for core in ("core", "_core")
        for module in ("multiarray", "numeric")
        for name, maker in _MAKERS.items()
    },
}


class _Bounded:
    """File that never reserves memory beyond its size, however much is asked for."""

    def __init__(self, file: BinaryIO, num_bytes: int) -> None:
        self._file, self._num_bytes = file, num_bytes
        self.readline = file.readline

    def read(self, count: int) -> bytes:
        return self._file.read(max(0, min(count, self._num_bytes - self._file.tell())))


class _Reader(_PythonUnpickler):
    """Unpickler of Python, whose memo is a dict, restricted to a list of opcodes."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in _ALLOWED:
            raise _RefusedError(" ".join(f"{module}.{name}".split())[:80])
        return _ALLOWED[module, name]

    def load_reduce(self) -> None:
        arguments = self.stack.pop()
        maker = self.stack[-1]
        if maker is None or not any(maker is allowed for allowed in _ALLOWED.values()):
            raise _RefusedError("a call of something else")
        self.stack[-1] = maker(*arguments)

    def load_build(self) -> None:
        state = self.stack.pop()
        if not isinstance(self.stack[-1], _Type | _Array):
            raise _RefusedError("attributes of other objects")
        self.stack[-1].set_state(state)

    def load_bytearray8(self) -> None:
        (count,) = struct.unpack("<Q", self.read(8))
        self.append(bytearray(self.read(count)))

    def load_dict(self) -> None:
        items = self.pop_mark()
        self.append({})
        self._set(items)

    def load_setitem(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self._set([key, value])

    def load_setitems(self) -> None:
        self._set(self.pop_mark())

    def load_other(self) -> None:
        raise _RefusedError("an opcode of objects")

    def _set(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            # Python would hash nested tuples recursively, until its stack overflows.
            if not isinstance(key, str | bytes | int) or not isinstance(self.stack[-1], dict):
                raise _RefusedError("a key that is no name")
            self.stack[-1][key] = value

    dispatch: ClassVar = {
        **dict.fromkeys(range(256), load_other),
        **{code: _PythonUnpickler.dispatch[code] for code in _CODES},
        pickle.REDUCE[0]: load_reduce,
        pickle.BUILD[0]: load_build,
        pickle.BYTEARRAY8[0]: load_bytearray8,
        pickle.DICT[0]: load_dict,
        pickle.SETITEM[0]: load_setitem,
        pickle.SETITEMS[0]: load_setitems,
    }


def _values(found: Any, seen: dict[int, Any]) -> Any:
    """Replace placeholders by their arrays; shared parts are made once.

    Raises:
        _RefusedError: A part is no plain value, or contains itself.
    """
    if isinstance(found, _Array) and found.value is not None:
        return found.value
    if found is None or isinstance(found, _VALUES):
        return found
    if not isinstance(found, dict | list | tuple):
        raise _RefusedError("something that is no value")
    if id(found) not in seen:
        seen[id(found)] = _Type  # until it is complete
        if isinstance(found, dict):
            made: Any = {key: _values(value, seen) for key, value in found.items()}
        else:
            made = type(found)(_values(value, seen) for value in found)
        seen[id(found)] = made
    if seen[id(found)] is _Type:
        raise _RefusedError("a list that contains itself")
    return seen[id(found)]
