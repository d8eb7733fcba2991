"""Encoders inside other people's checkpoints, below parts and prefixes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from midway.errors import MidwayError
from midway.models.weights.check import shown

ANCHORS = (
    "patch_embed.proj.weight",
    "embeddings.patch_embeddings.projection.weight",
    "embeddings.patch_embeddings.weight",
    "layer1.0.conv1.weight",
)
"""Tensors that every ViT of timm or transformers, and every ResNet of torchvision, contains."""
PREFERRED = (
    *("teacher", "ema", "ema_encoder", "momentum_encoder", "target_encoder"),
    *("student", "encoder"),
)
"""Parts of a file in the order of preference, if none is asked for."""
WRAPPERS = ("_orig_mod.", "_fsdp_wrapped_module.", "_checkpoint_wrapped_module.")
"""Parts of names that wrappers of torch insert at any depth."""


@dataclass(frozen=True, kw_only=True)
class Unwrapped:
    """An encoder in a file."""

    tensors: dict[str, Tensor]
    """Its tensors, and others with the same prefix, without the prefix."""
    outside: tuple[str, ...]
    """Names of all other tensors of the file."""
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
    prefixes = _prefixes(names.values())
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
    outside = tuple(new for new in names.values() if not new.startswith(prefix))
    others = tuple(each for each in prefixes if each != prefix)
    return Unwrapped(tensors=inner, outside=outside, prefix=prefix, others=others)


def has_several_encoders(tensors: Iterable[str]) -> bool:
    """Return whether a file has more than one encoder, such as a student and a teacher.

    Args:
        tensors: Names of the tensors of the file.

    """
    return len(_prefixes(map(_without_wrappers, tensors))) > 1


def _prefixes(names: Iterable[str]) -> list[str]:
    """Return the prefixes of encoders in alphabetical order."""
    return sorted(
        name.removesuffix(anchor)
        for name in names
        for anchor in ANCHORS
        if f".{name}".endswith(f".{anchor}")
    )


def _without_wrappers(name: str) -> str:
    for wrapper in WRAPPERS:
        name = name.replace(wrapper, "")
    return name


def _rank(prefix: str, wanted: str) -> tuple[bool, int, int, str]:
    parts = prefix.split(".")
    places = [place for place, part in enumerate(PREFERRED) if part in parts]
    return wanted not in parts, min(places, default=len(PREFERRED)), len(prefix), prefix
