"""Values from the configuration files that transformers and timm write beside their weights."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from midway.config import read_json
from midway.errors import MidwayError
from midway.models.weights.check import shown

WEIGHTS = ("model.safetensors", "pytorch_model.bin")
"""Names of the weights beside which the libraries write a configuration."""
CONFIG, PREPROCESSOR = "config.json", "preprocessor_config.json"
LARGEST = 1 << 20
"""Largest size of a configuration file in bytes."""


def config_beside(file: Path) -> dict[str, Any]:
    """Read fields of a ViT's configuration from the files beside its weights.

    Args:
        file: File of the weights; without a name that a library gives, nothing is read beside it.

    Raises:
        MidwayError: A configuration file is not a JSON object, or states another activation than
            those of our blocks.

    """
    if file.name not in WEIGHTS:
        return {}
    config, colours = (_read(file.with_name(name)) for name in (CONFIG, PREPROCESSOR))
    activation = "silu" if config.get("use_gated_mlp") else "gelu"
    if (stated := config.get("hidden_act", activation)) != activation:
        raise MidwayError(
            f"{file.with_name(CONFIG)}: hidden_act {shown([stated])} is not {activation}, the "
            "activation of this encoder; give weights that were trained with that one"
        )
    timm = config.get("pretrained_cfg")
    if isinstance(timm, Mapping):
        colours = {f"image_{name}": timm.get(name) for name in ("mean", "std")}
    heads = config.get("num_attention_heads")
    found = {
        "heads": heads if isinstance(heads, int) and heads > 0 else None,
        "norm_eps": config.get("layer_norm_eps"),
        "mean": colours.get("image_mean"),
        "std": colours.get("image_std"),
    }
    return {name: value for name, value in found.items() if value is not None}


def _read(path: Path) -> dict[str, Any]:
    return read_json(path) if path.is_file() and path.stat().st_size <= LARGEST else {}
