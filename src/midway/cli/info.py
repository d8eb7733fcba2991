"""midway info NETWORK: say what a run folder, a checkpoint or a file of weights holds."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Annotated, Any

import tyro
from torch import Tensor, nn

from midway.cli.options import NO_HINTS, ReleaseOptions, parse, say
from midway.config import read_json, to_json
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder
from midway.models.flow.network import HEADER as FLOW_HEADER
from midway.models.midway import NetworkConfig
from midway.models.weights.files import WeightsFile
from midway.models.weights.load import build_encoder, build_network
from midway.models.weights.release import UnknownHeadsError
from midway.models.weights.sources import load_encoder, read_source


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print sizes and parameter counts of a network or an encoder."""
    return parse(info, words, prog="midway info")


def info(
    network: Annotated[str, tyro.conf.arg(metavar="NETWORK")], /, release: ReleaseOptions = NO_HINTS
) -> dict[str, Any]:
    """Say what a file holds: a Midway network, a run of any method, a readout, an encoder.

    Args:
        network: Run folder, release .pth, .ckpt, .safetensors, hub id, timm:NAME, random.
        release: For a release file, where its arguments are silent or wrong.

    """
    file = read_source(network)
    if file is not None and file.has_network:
        found, lines = _midway(file, release)
    elif file is not None:
        found, lines = _other(file, release)
    else:
        encoder = load_encoder(network, untrained=True)
        found, lines = {"kind": encoder.kind, "parameters": {"encoder": _count(encoder)}}, []
        lines.append(f"encoder: {_sizes(encoder)}")
    say(network)
    for name, count in found["parameters"].items():
        say(f"  {name:<9} {count / 1e6:6.1f} M parameters")
    for line in lines:
        say(f"  {line}")
    return {"network": network, "file": network if file is None else str(file.path)} | found


def _midway(file: WeightsFile, release: ReleaseOptions) -> tuple[dict[str, Any], list[str]]:
    """Describe a Midway network: values for JSON, and lines for people."""
    untold: tuple[str, ...] = ()
    try:
        network = build_network(file, release)
    except UnknownHeadsError as error:  # no size depends on them
        untold = error.names
        network = build_network(file, replace(release, **dict.fromkeys(untold, 1)))
    counts = {
        "encoder": _count(network.encoder),
        "dynamics": _count(network.dynamics),
        "head": _count(network.head),
        "teacher": _count(network.teacher),
    }
    values = to_json(network.config)
    for name in untold:
        part, field = ("encoder", "heads") if name == "encoder_heads" else ("dynamics", name)
        values[part][field] = None
    heads = values["encoder"]["heads"] or "an untold number of"
    found = {"kind": "midway network", "parameters": counts, "config": values}
    return found, _midway_lines(network.config, heads)


def _midway_lines(config: NetworkConfig, heads: object) -> list[str]:
    encoder, dynamics = config.encoder, config.dynamics
    height, width = encoder.image_size
    return [
        f"encoder: width {encoder.width}, {encoder.depth} blocks, {heads} heads, patch "
        f"{encoder.patch_size}, {height}x{width} pixels",
        f"dynamics: levels {', '.join(map(str, dynamics.levels))}, {dynamics.num_latents} motion "
        f"latents of width {dynamics.midway_width}, gates {'on' if dynamics.gates else 'off'}",
    ]


def _other(file: WeightsFile, release: ReleaseOptions) -> tuple[dict[str, Any], list[str]]:
    """Describe anything else: parameters by part, and the encoders that can be opened."""
    kind, lines = _purpose(file)
    names = list(file.encoders) or (["encoder"] if file.layout == "plain" else [])
    encoders = {name: build_encoder(file, name, release) for name in names}
    counts = {name: _count(encoder) for name, encoder in encoders.items()}
    if not encoders or any(spec.prefix for spec in file.encoders.values()):
        counts = _by_part(file.tensors)  # of a run or network with more parts than encoders
    found = {
        "kind": kind,
        "parameters": counts,
        "encoders": {
            name: {"kind": encoder.kind, "config": to_json(encoder.config)}
            for name, encoder in encoders.items()
        },
    }
    return found, lines + [f"{name}: {_sizes(encoder)}" for name, encoder in encoders.items()]


def _purpose(file: WeightsFile) -> tuple[str, list[str]]:
    """Say what a file without Midway network is of."""
    if FLOW_HEADER in file.header:
        crop = json.loads(file.header[FLOW_HEADER])["crop"]
        return "flow network", [f"flow network: finetuned on crops of {crop[0]}x{crop[1]} pixels"]
    if file.layout != "run":
        return "encoder", []
    try:
        config = read_json(file.path.parent.parent / "config.json")
    except MidwayError:
        return "run", []
    if "protocol" in config:
        return "evaluation", [f"evaluation by protocol {config['protocol']}"]
    method = config.get("method")
    name = method.get("name") if isinstance(method, Mapping) else None
    return "run", [f"run of method {name}"]


def _by_part(tensors: Mapping[str, Any]) -> dict[str, int]:
    """Count the values of a state dict by the first part of their names."""
    counts: dict[str, int] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            part = name.partition(".")[0]
            counts[part] = counts.get(part, 0) + tensor.numel()
    return counts


def _sizes(encoder: Encoder) -> str:
    return f"{encoder.kind}, {encoder.depth} levels, width {encoder.width}, stride {encoder.stride}"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
