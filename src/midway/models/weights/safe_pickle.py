"""Read a torch checkpoint without running code from it, OmegaConf arguments included."""

import collections
import pickle
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midway.errors import MidwayError


class _Stub:
    """Replacement for an OmegaConf class, with its pickled state and no behaviour."""

    def __setstate__(self, state: Any) -> None:
        self.__dict__.update(state if isinstance(state, dict) else {"_content": state})


_OMEGACONF = (
    "dictconfig.DictConfig",
    "listconfig.ListConfig",
    "base.ContainerMetadata",
    "base.Metadata",
    "base.SCMode",
    "nodes.AnyNode",
    "nodes.BooleanNode",
    "nodes.BytesNode",
    "nodes.EnumNode",
    "nodes.FloatNode",
    "nodes.IntegerNode",
    "nodes.PathNode",
    "nodes.StringNode",
)


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Return the contents of a file written by `torch.save`, OmegaConf nodes as plain values.

    Only tensors, plain values and containers are built. A pickle with any other class or function
    is refused before it is called.

    Raises:
        MidwayError: The file does not exist, is not a checkpoint, or could run code.

    """
    # The release pickles its arguments as OmegaConf objects; stubs avoid that dependency.
    stubs = [(type(name, (_Stub,), {}), f"omegaconf.{name}") for name in _OMEGACONF]
    harmless = [dict, list, int, str, collections.defaultdict, (typing.Any, "typing.Any")]
    try:
        with torch.serialization.safe_globals([*stubs, *harmless]):
            contents = _to_plain(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise MidwayError(f"{path}: not read, {_refused(error)}") from None
    except OSError as error:
        raise MidwayError(f"{path}: cannot be read ({error.strerror or error})") from None
    # torch raises any of these for a damaged file.
    except (RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MidwayError(f"{path}: not a torch checkpoint ({reason}); is it complete?") from None
    if not isinstance(contents, dict):
        raise MidwayError(f"{path}: contains a {type(contents).__name__}, not a dict of weights")
    return contents


def named_tensors(values: object, *, where: str) -> dict[str, Tensor]:
    """Check that `values` is a state dict of floating-point tensors, and return it.

    Raises:
        MidwayError: It is not a dict, or contains something else than named floating-point tensors.

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
            f"{where} has entries that are not floating-point tensors: {', '.join(strange)}"
        )
    return dict(values)


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided


def _refused(error: pickle.UnpicklingError) -> str:
    # The unpickler states the class or function in its message only.
    text = str(error)
    for mark in ("Unsupported global: GLOBAL ", "Unsupported class ", "Trying to call reduce for "):
        if mark in text:
            name = text.split(mark, 1)[1].split()[0].rstrip(".")
            return f"its pickle asks for {name}, which could run code; convert it to .safetensors"
    return "not a checkpoint of torch; give a .pth, .ckpt or .safetensors file"


def _to_plain(value: Any) -> Any:
    """Replace stubs by plain values: a config node by its content, a leaf by its value."""
    if isinstance(value, _Stub):
        state = value.__dict__
        return _to_plain(state["_content"] if "_content" in state else state.get("_val"))
    if isinstance(value, dict):
        return {_to_plain(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    return value
