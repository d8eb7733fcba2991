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
    """Stands for an OmegaConf class: keeps the pickled state and does nothing."""

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
    """Contents of a file written by `torch.save`; OmegaConf nodes become plain values.

    Only tensors, plain values and containers are built: a pickle that asks for anything else is
    refused before it is called.

    Raises:
        MidwayError: No such file, no checkpoint, or one that asks to run code.

    """
    stubs = [(type(name, (_Stub,), {}), f"omegaconf.{name}") for name in _OMEGACONF]
    harmless = [dict, list, int, str, collections.defaultdict, (typing.Any, "typing.Any")]
    try:
        with torch.serialization.safe_globals([*stubs, *harmless]):
            contents = _to_plain(torch.load(path, map_location="cpu", weights_only=True))
    except pickle.UnpicklingError as error:
        raise MidwayError(f"{path}: not read, {_refused(error)}") from None
    except OSError as error:
        raise MidwayError(f"{path}: cannot be read ({error.strerror or error})") from None
    except (RuntimeError, EOFError, ValueError, TypeError, AttributeError, LookupError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise MidwayError(f"{path}: no torch checkpoint ({reason}); is the file whole?") from None
    if not isinstance(contents, dict):
        raise MidwayError(f"{path}: holds a {type(contents).__name__}, no dict of weights")
    return contents


def named_tensors(values: object, *, where: str) -> dict[str, Tensor]:
    """The state dict that `values` should be.

    Raises:
        MidwayError: No dict, or something in it is no tensor of real numbers with a name.

    """
    if not isinstance(values, Mapping):
        raise MidwayError(f"{where} is a {type(values).__name__}, no dict of tensors")
    strange = [
        str(name)
        for name, value in values.items()
        if not (isinstance(name, str) and isinstance(value, Tensor) and _is_real(value))
    ]
    if strange:
        raise MidwayError(f"{where} holds what is no floating-point tensor: {', '.join(strange)}")
    return dict(values)


def _is_real(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.layout == torch.strided


def _refused(error: pickle.UnpicklingError) -> str:
    text = str(error)
    for mark in ("Unsupported global: GLOBAL ", "Unsupported class ", "Trying to call reduce for "):
        if mark in text:
            name = text.split(mark, 1)[1].split()[0].rstrip(".")
            return f"its pickle asks for {name}, which could run code; convert it to .safetensors"
    return "no checkpoint of torch; give a .pth, .ckpt or .safetensors file"


def _to_plain(value: Any) -> Any:
    """Replace stubs by what they hold: a config node by its content, a leaf by its value."""
    if isinstance(value, _Stub):
        state = value.__dict__
        return _to_plain(state["_content"] if "_content" in state else state.get("_val"))
    if isinstance(value, dict):
        return {_to_plain(key): _to_plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_to_plain(item) for item in value]
    return value
