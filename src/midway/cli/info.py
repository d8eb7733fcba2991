"""midway info FILE: what a network file holds."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from midway.cli.options import parse
from midway.config import to_json
from midway.models.release import UnknownHeadsError
from midway.models.weights import load


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print sizes and parameter counts of a checkpoint, run folder or .safetensors file."""
    return parse(info, words, prog="midway info")


def info(file: Path, /, encoder_heads: int | None = None) -> dict[str, Any]:
    """Say what a network file holds.

    Args:
        file: Release .pth, run folder, .ckpt or .safetensors.
        encoder_heads: Attention heads of the encoder, where a release file does not tell.

    """
    try:
        network = load(file, encoder_heads=encoder_heads)
        heads = network.config.encoder.heads
    except UnknownHeadsError:  # no size depends on it
        network = load(file, encoder_heads=1)
        heads = None
    counts = {
        "encoder": _count(network.encoder),
        "dynamics": _count(network.dynamics),
        "head": _count(network.head),
        "teacher": _count(network.teacher),
    }
    config = network.config
    height, width = config.encoder.image_size
    print(f"{file}")
    for name, count in counts.items():
        print(f"  {name:<9} {count / 1e6:6.1f} M parameters")
    print(
        f"  encoder: width {config.encoder.width}, {config.encoder.depth} blocks, "
        f"{heads or 'an untold number of'} heads, patch {config.encoder.patch_size}, {height}x{width} pixels"
    )
    print(
        f"  dynamics: levels {', '.join(map(str, config.dynamics.levels))}, "
        f"{config.dynamics.num_latents} motion latents of width {config.dynamics.midway_width}, "
        f"gates {'on' if config.dynamics.gates else 'off'}"
    )
    values = to_json(config)
    values["encoder"]["heads"] = heads
    return {"file": str(file), "parameters": counts, "config": values}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
