"""Read a torch checkpoint without running code from it, OmegaConf arguments included."""

import collections
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from midway.errors import MidwayError
from midway.models.weights.archive import archive_fault
from midway.models.weights.check import printable, shown
from midway.models.weights.sniff import wrong_kind


class _Stub:
    """Replacement for an OmegaConf class, with its pickled state and no behaviour."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"_content": state})

    def content(self) -> Any:
        """Return the plain value: a node's content, a leaf's value, or all attributes."""
        state = self.__dict__
        return state.get("_content", state.get("_val", None if "_metadata" in state else state))


class _Mention:
    """Replacement for a type that a config node mentions, which cannot be called."""

    def __new__(cls, *_: object) -> Self:
        raise TypeError("a type is called")


_ARGUMENTS = (
    "omegaconf.dictconfig.DictConfig",
    "omegaconf.listconfig.ListConfig",
    "omegaconf.base.ContainerMetadata",
    "omegaconf.base.Metadata",
    "omegaconf.base.SCMode",
    "omegaconf.nodes.AnyNode",
    "omegaconf.nodes.BooleanNode",
    "omegaconf.nodes.BytesNode",
    "omegaconf.nodes.EnumNode",
    "omegaconf.nodes.FloatNode",
    "omegaconf.nodes.IntegerNode",
    "omegaconf.nodes.PathNode",
    "omegaconf.nodes.StringNode",
    "argparse.Namespace",
)
_MENTIONED = ("builtins.dict", "builtins.list", "builtins.int", "builtins.str", "typing.Any")
MAX_VALUES = 1 << 19
"""Largest number of values in a checkpoint, tensors counted as one."""
MAX_BITS = 1024
"""Largest number of bits of an integer."""
MAX_REPEATS = 8
"""Largest ratio of the bytes of all tensors to those of the file."""
_DAMAGED = (
    *(RuntimeError, EOFError, ValueError, TypeError),
    *(AttributeError, LookupError, AssertionError),
)
_TOO_LARGE = "its contents would unfold to far more than the size of the file; fetch it again"


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the contents of a file written by `torch.save`, OmegaConf nodes as plain values.

    Only tensors, plain values and containers are built. A pickle with any other class or function
    is refused before it is called. Checksums are compared first, see `archive_fault`.

    Raises:
        MidwayError: The file does not exist, is damaged or not a checkpoint, could run code, or
            would take far more memory than its size.

    """
    # The release pickles its arguments as OmegaConf objects; stubs avoid that dependency. Types
    # that are mentioned there are stubs too, so that none can be called.
    stubs = [(type(name, (_Stub,), {}), name) for name in _ARGUMENTS]
    stubs += [(type(name, (_Mention,), {}), name) for name in _MENTIONED]
    try:
        fault = wrong_kind(path) or archive_fault(path)
        if fault:
            raise MidwayError(f"{path}: {fault}")
        with torch.serialization.safe_globals([*stubs, collections.defaultdict]):
            contents = torch.load(path, map_location="cpu", weights_only=True)
        contents = _Plain(path.stat().st_size).of(contents)
    except pickle.UnpicklingError as error:
        raise MidwayError(f"{path}: not read, {_refused(error)}") from None
    except OSError as error:
        raise MidwayError(f"{path}: cannot be read ({error.strerror or error})") from None
    except MemoryError:
        raise MidwayError(f"{path}: {_TOO_LARGE}") from None
    # torch raises any of these for a damaged file.
    except _DAMAGED as error:
        reason = _first_line(str(error)) or type(error).__name__
        raise MidwayError(f"{path}: not a torch checkpoint ({reason}); is it complete?") from None
    if not isinstance(contents, dict):
        raise MidwayError(f"{path}: contains a {type(contents).__name__}, not a dict of weights")
    return contents


def named_tensors(values: object, *, where: str) -> dict[str, Tensor]:
    """Check that `values` is a state dict of floating-point tensors, and return it.

    Raises:
        MidwayError: It is not a dict, or contains anything but named floating-point tensors.

    """
    if not isinstance(values, Mapping):
        raise MidwayError(f"{where} is a {type(values).__name__}, not a dict of tensors")
    # Sparse and quantised tensors cannot be loaded into our modules either.
    strange = [
        str(name)
        for name, value in values.items()
        if not (isinstance(name, str) and isinstance(value, Tensor) and _is_real(value))
    ]
    if strange:
        raise MidwayError(
            f"{where} has entries that are not floating-point tensors: {shown(strange)}; "
            "remove them from the file"
        )
    return dict(values)


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided and not tensor.is_meta


def _refused(error: pickle.UnpicklingError) -> str:
    # The unpickler states the class or function in its message only.
    text = str(error)
    for mark in ("Unsupported global: GLOBAL ", "Unsupported class ", "Trying to call reduce for "):
        if mark in text:
            name = _first_line(text.split(mark, 1)[1].split()[0].rstrip("."))
            return f"its pickle asks for {name}, which could run code; convert it to .safetensors"
    return "not a checkpoint of torch; give a .pth, .ckpt or .safetensors file"


def _first_line(text: str) -> str:
    return printable(next(iter(text.splitlines()), "")[:120])


class _Plain:
    """Conversion of contents to plain values, bounded in count and in bytes.

    Args:
        file_bytes: Size of the file.

    """

    def __init__(self, file_bytes: int) -> None:
        self._num_left = MAX_VALUES
        # Some files contain a tensor under several names.
        self._bytes_left = MAX_REPEATS * file_bytes

    def of(self, value: Any) -> Any:
        """Replace stubs by plain values: a config node by its content, a leaf by its value.

        Raises:
            MemoryError: There are too many values, or tensors repeat few bytes of the file.

        """
        # A list may stand in many places, and so unfold without end.
        self._num_left -= 1
        if self._num_left < 0:
            raise MemoryError
        if isinstance(value, _Stub):
            return self.of(value.content())
        if isinstance(value, Tensor):
            self._count(value)
        if isinstance(value, int) and value.bit_length() > MAX_BITS:
            # Python refuses to print such numbers, so no error could name one.
            raise ValueError("an integer is too large")
        if isinstance(value, dict):
            return {self.of(key): self.of(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [self.of(item) for item in value]
        return value

    def _count(self, tensor: Tensor) -> None:
        if tensor.layout != torch.strided or tensor.is_meta:
            return
        num_bytes = tensor.numel() * tensor.element_size()
        self._bytes_left -= num_bytes
        # A stride of 0 makes a large tensor of one element.
        if self._bytes_left < 0 or num_bytes > tensor.untyped_storage().nbytes():
            raise MemoryError
