"""Encoders inside other people's checkpoints, with the names of timm."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from midway.errors import MidwayError
from midway.models.weights.check import shown

ANCHORS = ("patch_embed.proj.weight", "layer1.0.conv1.weight")
"""Tensors that every ViT of timm, and every ResNet of torchvision, contains."""
PREFERRED = ("teacher", "ema", "momentum_encoder", "target_encoder", "student", "encoder")
"""Parts of a file in the order of preference, if none is asked for."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts of names that wrappers of torch insert at any depth."""
LEFT_OUT = ("head.", "head_dist.", "fc_norm.", "fc.", "decoder", "mask_token")
"""Beginnings of the names of classifiers and of decoders for pretraining, which no evaluation
needs."""


@dataclass(frozen=True, kw_only=True)
class Unwrapped:
    """An encoder's tensors with the names of timm or torchvision."""

    tensors: dict[str, Tensor]
    prefix: str
    """Part of the file and prefix of the names, such as ``teacher.backbone.``; may be empty."""
    others: tuple[str, ...]
    """Prefixes of other encoders in the file."""


def flatten(contents: Mapping[Any, Any], prefix: str = "") -> dict[str, Tensor]:
    """Return all tensors of nested dicts, with the keys on the way to them joined by dots."""
    found: dict[str, Tensor] = {}
    for key, value in contents.items():
        if isinstance(value, Tensor):
            found[f"{prefix}{key}"] = value
        elif isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{key}.")
    return found


def unwrap(tensors: Mapping[str, Tensor], wanted: str, *, where: str) -> Unwrapped | None:
    """Find the encoder in the tensors of a file.

    Args:
        tensors: Output of `flatten`.
        wanted: Part to prefer, such as "teacher" or "student", where there are several encoders.
        where: Name of the file, for error messages.

    Returns:
        The encoder, or None if there is none with known names.

    Raises:
        MidwayError: There are several encoders, but not the wanted one.

    """
    # Wrappers come off first, as they may hide what stands behind them.
    names = {name: _without_wrappers(name) for name in tensors}
    prefixes = sorted(
        name.removesuffix(anchor)
        for name in names.values()
        for anchor in ANCHORS
        if f".{name}".endswith(f".{anchor}")
    )
    if not prefixes:
        return None
    prefix = min(prefixes, key=lambda each: _rank(each, wanted))
    if len(prefixes) > 1 and wanted not in ("teacher", *prefix.split(".")):
        parts = shown(each.rstrip(".") or "the top level" for each in prefixes)
        raise MidwayError(f"{where}: no encoder '{wanted}'; there are {parts}: choose by --weights")
    inner = {
        new.removeprefix(prefix): tensors[name]
        for name, new in names.items()
        if new.startswith(prefix)
    }
    if len(inner) < sum(new.startswith(prefix) for new in names.values()):
        raise MidwayError(
            f"{where}: has tensors of one name with and without the inserts of torch.compile or "
            "FSDP; save one of them"
        )
    kept = {name: tensor for name, tensor in inner.items() if not name.startswith(LEFT_OUT)}
    others = tuple(each for each in prefixes if each != prefix)
    return Unwrapped(tensors=_unchunked(kept), prefix=prefix, others=others)


def _without_wrappers(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _rank(prefix: str, wanted: str) -> tuple[bool, int, int, str]:
    parts = prefix.split(".")
    places = [place for place, part in enumerate(PREFERRED) if part in parts]
    return wanted not in parts, min(places, default=len(PREFERRED)), len(prefix), prefix


def _unchunked(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Remove the number of the chunk from ``blocks.CHUNK.BLOCK.``, as DINOv2 names them."""
    chunked = re.compile(r"blocks\.\d+\.(?=\d+\.)")
    blocks = [name for name in tensors if name.startswith("blocks.")]
    if not blocks or not all(map(chunked.match, blocks)):
        return tensors
    # The number of the block counts through all chunks.
    return {chunked.sub("blocks.", name): tensor for name, tensor in tensors.items()}
