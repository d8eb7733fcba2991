"""midway info FILE: what a network file holds."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from midway.cli.options import NOTHING_TOLD, ToldOptions, parse
from midway.config import to_json
from midway.models.network_file import read_network_file
from midway.models.release import UnknownHeadsError
from midway.models.weights import build


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print sizes and parameter counts of a checkpoint, run folder or .safetensors file."""
    return parse(info, words, prog="midway info")


def info(file: Path, /, told: ToldOptions = NOTHING_TOLD) -> dict[str, Any]:
    """Say what a network file holds.

    Args:
        file: Release .pth, run folder, .ckpt or .safetensors.
        told: For a release file, where its arguments are silent or wrong.

    """
    opened = read_network_file(file)
    untold: tuple[str, ...] = ()
    try:
        network = build(opened, told)
    except UnknownHeadsError as error:  # no size depends on them
        untold = error.names
        network = build(opened, replace(told, **dict.fromkeys(untold, 1)))
    counts = {
        "encoder": _count(network.encoder),
        "dynamics": _count(network.dynamics),
        "head": _count(network.head),
        "teacher": _count(network.teacher),
    }
    config = network.config
    values = to_json(config)
    for name in untold:
        part, field = ("encoder", "heads") if name == "encoder_heads" else ("dynamics", name)
        values[part][field] = None
    heads = values["encoder"]["heads"] or "an untold number of"
    height, width = config.encoder.image_size
    print(f"{file}")
    for name, count in counts.items():
        print(f"  {name:<9} {count / 1e6:6.1f} M parameters")
    print(
        f"  encoder: width {config.encoder.width}, {config.encoder.depth} blocks, "
        f"{heads} heads, patch {config.encoder.patch_size}, {height}x{width} pixels"
    )
    print(
        f"  dynamics: levels {', '.join(map(str, config.dynamics.levels))}, "
        f"{config.dynamics.num_latents} motion latents of width {config.dynamics.midway_width}, "
        f"gates {'on' if config.dynamics.gates else 'off'}"
    )
    return {"file": str(file), "parameters": counts, "config": values}


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
