"""Recognition of a published layout in the tensors of a file."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from midway.errors import MidwayError
from midway.models.weights.check import shown
from midway.models.weights.layouts import vjepa
from midway.models.weights.layouts.families import (
    BACKBONE,
    CROCO,
    DINO,
    DINOV2,
    DINOV3,
    IBOT,
    MAE,
    PLAIN,
    VIDEOMAE,
    VJEPA,
    Family,
)
from midway.models.weights.layouts.names import is_of_transformers, to_timm
from midway.nn.rope import BASE

LEFT_OUT = {
    "decoder": r"(decoder|dec_(blocks|norm)\.)",
    "mask token": r"(embeddings\.)?mask(ed|_token)",
    "head": r"(head|dino_head|ibot_head|prediction_head|fc_norm|head_dist|fc|classifier|pooler)\.",
    "positions of a fixed formula": r"rope(_embed)?\.",
    "norm of local crops": r"local_cls_norm\.",
}
"""Parts of known layouts beside the encoder that no evaluation needs: beginnings of their names."""
OUTSIDE = {
    "decoder": r"(.*\.)?(encoder_to_)?decoder",
    "mask token": r"(.*\.)?mask_token$",
    "head": r"(.*\.)?(head|dino_head|ibot_head|classifier|predictor\w*)\.",
    "centre": r"(dino|ibot)_loss\.",
    "optimiser": r"(optimizer|fp16_scaler)\.",
}
"""Parts of known layouts outside of the encoder."""
OTHER, OTHER_ENCODERS = "other parts", "other encoders"
ROPE_EPS = 1e-5
"""Epsilon of the layer norms of DINOv3."""


@dataclass(frozen=True, kw_only=True)
class Recognised:
    """An encoder's tensors with the names of timm or torchvision, and the layout they were in."""

    tensors: dict[str, Tensor]
    family: Family
    layout: str
    """Family and form of the file, such as "DINO full checkpoint"."""
    config: dict[str, Any]
    """Fields of the encoder's configuration that no shape determines."""
    left_out: dict[str, list[str]]
    """Names of the tensors of the file that are not read, by kind of part."""


def recognise_layout(
    inner: Mapping[str, Tensor], outside: Iterable[str], others: tuple[str, ...] = ()
) -> Recognised:
    """Recognise the layout of an encoder, and convert its names.

    Args:
        inner: Tensors of the encoder without their common prefix.
        outside: Names of all other tensors of the file.
        others: Prefixes of other encoders in the file.

    Raises:
        MidwayError: It has rotary positions of another formula than ours.

    """
    left_out: dict[str, list[str]] = {}
    is_vjepa = vjepa.MARK in inner
    if is_vjepa:
        inner, left_out = vjepa.image_part(inner)
    kept: dict[str, Tensor] = {}
    for name, tensor in inner.items():
        if kind := _kind_of(name, LEFT_OUT):
            left_out.setdefault(kind, []).append(name)
        else:
            kept[name] = tensor
    outside = list(outside)
    for name in outside:
        kind = OTHER_ENCODERS if others and name.startswith(others) else _kind_of(name, OUTSIDE)
        left_out.setdefault(kind or OTHER, []).append(name)
    # Sparse, quantised and complex tensors are not converted; they are refused by name later.
    are_dense = all(map(_is_dense, inner.values()))
    family, form, config = (VJEPA, "image encoder", {}) if is_vjepa else (PLAIN, "", {})
    if are_dense and not is_vjepa:
        _check_periods(inner.get("rope_embed.periods"))
        family, form, config = _family(kept, [*inner, *outside])
    return Recognised(
        tensors=to_timm(kept) if are_dense else kept,
        family=family,
        layout=_joined(family.name, form),
        config=config,
        left_out=left_out,
    )


def summary(left_out: Mapping[str, list[str]]) -> str:
    """Return counts and examples of tensors that are not read, in one line."""
    return ", ".join(
        f"{len(names)} of {kind} ({shown([min(names)])}{', ...' * (len(names) > 1)})"
        for kind, names in left_out.items()
    )


def _kind_of(name: str, kinds: Mapping[str, str]) -> str:
    return next((kind for kind, pattern in kinds.items() if re.match(pattern, name)), "")


def _family(kept: Mapping[str, Tensor], names: list[str]) -> tuple[Family, str, dict[str, Any]]:
    """Return the family of an encoder, the form of its file, and what follows for its sizes."""
    library = "transformers' names" if is_of_transformers(kept) else ""
    if any("gamma_1" in name for name in kept):
        library = "timm's names"
    table = kept.get("pos_embed", kept.get("embeddings.position_embeddings"))
    if any(name.startswith("enc_blocks.") for name in kept):
        return CROCO, "", {}
    if any(tensor.ndim == 5 for name, tensor in kept.items() if "patch_embed" in name):
        return VIDEOMAE, library, {}
    if table is None:
        is_vit = any("patch_embed" in name for name in kept)
        return (DINOV3, library, {"norm_eps": ROPE_EPS}) if is_vit else (PLAIN, "", {})
    if any(re.search(r"\.(ls1\.gamma|layer_scale1\.lambda1)$", name) for name in kept):
        return DINOV2, *_form_of_dinov2(kept, names, library)
    plain = {"resampling": "plain"}
    if _is_table_of_mae(table):
        is_full = any(re.match(OUTSIDE["decoder"], name) for name in names)
        return MAE, _joined("encoder and decoder" if is_full else "encoder alone", library), plain
    if library:
        return BACKBONE, library, plain
    if any("ibot_loss" in n or "last_layer2." in n or "masked_embed" in n for n in names):
        return IBOT, "full checkpoint", {}
    if any(re.search(r"(^|\.)head\.last_layer\.|^dino_loss\.", name) for name in names):
        return DINO, "full checkpoint", {}
    return BACKBONE, "", {}


def _form_of_dinov2(
    kept: Mapping[str, Tensor], names: list[str], library: str
) -> tuple[str, dict[str, Any]]:
    """Return form and resampling of a file of DINOv2, whose variants interpolate differently."""
    has_registers = any("reg" in name and "token" in name for name in kept)
    if not library and not any("mask_token" in name for name in names):
        library = "timm's names"
    form = _joined("with registers" if has_registers else "", library)
    if has_registers or library == "timm's names":
        return form, {"resampling": "antialias"}
    return form, {"resampling": "plain" if library else "offset"}


def _is_dense(tensor: Tensor) -> bool:
    return not (tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex())


def _joined(*words: str) -> str:
    return ", ".join(word for word in words if word)


def _check_periods(periods: Tensor | None) -> None:
    """Check that stored periods of rotary positions are those of our formula, to bfloat16."""
    if periods is None:
        return
    ours = BASE ** (torch.arange(periods.numel()) / max(periods.numel(), 1))
    if not torch.allclose(periods.float().flatten(), ours, rtol=0.01):
        raise MidwayError(
            f"its rope_embed.periods are not those of base {BASE:g}, as in DINOv3; such a model is "
            "not supported"
        )


def _is_table_of_mae(table: Tensor) -> bool:
    """Return whether a position table is MAE's of sines and cosines, with a class row of zeros."""
    if table.ndim != 3 or table.shape[1] < 2 or table.shape[2] % 4:
        return False
    # The first patch is at 0, 0: its sines are 0, and its cosines are 1.
    start = torch.zeros(2, 2, table.shape[2] // 4, device=table.device)
    start[:, 1] = 1
    expected = torch.stack([torch.zeros_like(start), start]).flatten(1)
    return torch.allclose(table[0, :2].float(), expected, atol=1e-4)
