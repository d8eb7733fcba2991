"""Write networks and encoders: .safetensors with configuration, or the release's .pth layout."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import nn

from midway.atomic import write_atomically
from midway.config import json_text, to_json
from midway.errors import MidwayError
from midway.models.encoders.base import ENCODERS, Encoder, describe
from midway.models.encoders.vit import EncoderConfig
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.weights.check import check_finite, is_finite
from midway.models.weights.files import NETWORK
from midway.models.weights.release import to_release_name, unflatten_release

SUFFIXES = (".safetensors", ".pth")
"""Endings of the names of weights files."""


def save(network: MidwayNetwork | Encoder, path: Path, *, half: bool = False) -> None:
    """Write `.safetensors` (configuration in the header) or, for `.pth`, the release layout.

    An encoder is written with its parameter names: timm's for a ViT, torchvision's for a ResNet.

    Args:
        network: Network or encoder to write; unchanged.
        path: File to create or replace; the suffix selects the format.
        half: If True, round the weights to half precision, for a file of half the size.

    Raises:
        MidwayError: The suffix is unknown, or the release layout cannot represent the network.

    """
    if path.suffix not in SUFFIXES:
        raise MidwayError(f"{path}: unknown format; give a name ending in .safetensors or .pth")
    if path.suffix == ".safetensors":
        if isinstance(network, Encoder):
            header, encoders = {}, {"encoder": network}
        else:
            header, encoders = {NETWORK: to_json(network.config)}, network.encoders
        write_safetensors(network, path, header, encoders, half=half)
    elif isinstance(network, Encoder):
        raise MidwayError(
            f"{path}: the release layout is for whole networks; give a name ending in .safetensors"
        )
    else:
        _write_release(network, path, half=half)


def write_safetensors(
    module: nn.Module,
    path: Path,
    header: Mapping[str, Any],
    encoders: Mapping[str, Encoder],
    *,
    half: bool = False,
) -> None:
    """Write the tensors of a module, with configuration and encoder descriptions in the header.

    Args:
        module: Module to write; unchanged.
        path: File to create or replace.
        header: Configuration by key.
        encoders: Parts of the module by name, for `midway.load_encoder`.
        half: If True, round floating-point tensors to half precision.

    """
    values = {**header, ENCODERS: describe(module, encoders)}
    # Values of a .safetensors header are strings.
    metadata = {key: json_text(value) for key, value in values.items()}
    content = to_safetensors(_tensors(module, path, half=half), metadata)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(content))


def _tensors(module: nn.Module, path: Path, *, half: bool) -> dict[str, torch.Tensor]:
    state = module.state_dict()
    check_finite(state, where=str(path))
    if not half:
        return {name: tensor.contiguous() for name, tensor in state.items()}
    rounded = {
        name: (tensor.half() if tensor.is_floating_point() else tensor).contiguous()
        for name, tensor in state.items()
    }
    if large := [name for name, t in rounded.items() if t.is_floating_point() and not is_finite(t)]:
        raise MidwayError(
            f"{path}: tensor {large[0]} has values above 65504, the largest of float16; save it in "
            "float32"
        )
    return rounded


def _write_release(network: MidwayNetwork, path: Path, *, half: bool) -> None:
    args = _release_args(network.config)
    levels = network.config.dynamics.levels
    tensors = _tensors(network, path, half=half)
    renamed = {to_release_name(name, levels): tensor for name, tensor in tensors.items()}
    parts = unflatten_release(renamed) | {"args": args}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: torch.save(parts, file))


def _release_args(config: NetworkConfig) -> dict[str, Any]:
    """Return the arguments that `release_sizes` reads, under the release's names."""
    dynamics = config.dynamics
    # The layout has no place for these two fields, so only their defaults can be written.
    if dataclasses.replace(dynamics, refinement=True, gate_input="previous") != dynamics:
        raise MidwayError(
            "the release layout cannot represent refinement off or gate_input 'own'; "
            "export to .safetensors"
        )
    encoder, plain = config.encoder, EncoderConfig()
    unnamed = ("layer_scale", "swiglu", "positions", "resampling", "norm_eps", "mean", "std")
    if other := [each for each in unnamed if getattr(encoder, each) != getattr(plain, each)]:
        raise MidwayError(
            f"the release layout cannot represent an encoder's {other[0]}; export to .safetensors"
        )
    arch = {3: "vit_tiny", 6: "vit_small", 12: "vit_base", 16: "vit_large"}
    return {
        "arch": arch.get(config.encoder.heads, "vit_custom"),
        "patch_size": config.encoder.patch_size,
        "drop_path_rate": config.encoder.drop_path,
        "global_crop_resolution": list(config.encoder.image_size),
        # The release counts levels from 0.
        "motion_feature_levels": [level - 1 for level in config.levels],
        "midway_model_configs": {
            "num_motion_heads": dynamics.midway_heads,
            "num_feature_heads": dynamics.backward_heads,
            "num_pred_heads": dynamics.forward_heads,
        },
    }
