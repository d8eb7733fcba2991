"""Command ``midway info NETWORK``: describe a run folder, checkpoint or weights file."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import tyro
from torch import Tensor, nn

from midway.cli.options import NO_HINTS, ReleaseOptions, next_step, parse, say
from midway.config import read_json, to_json
from midway.errors import MidwayError, counted
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.flow.network import flow_config
from midway.models.midway import NetworkConfig
from midway.models.weights.check import shown
from midway.models.weights.files import FLOW, WeightsFile
from midway.models.weights.layouts.published import PUBLISHED
from midway.models.weights.layouts.recognise import summary
from midway.models.weights.load import build_encoder, build_network, open_foreign
from midway.models.weights.release import ReleaseHints, UnknownHeadsError
from midway.models.weights.sources import load_encoder, read_source
from midway.models.weights.unwrap import PREFERRED


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print sizes and parameter counts of a network or an encoder."""
    return parse(info, words, prog="midway info")


def info(
    network: Annotated[str, tyro.conf.arg(metavar="NETWORK")], /, release: ReleaseOptions = NO_HINTS
) -> dict[str, Any]:
    """Describe a network, run, readout or encoder: its kind, sizes and numbers of parameters.

    Args:
        network: Run folder, release .pth, .ckpt, .safetensors, name or hub id, timm:NAME, random.
        release: Overrides for a release file that lacks these values or states wrong ones.

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
    if file is not None and file.layout == "run" and found["kind"] != "evaluation":
        lines += _history(file.path.parent.parent)
    if network in PUBLISHED:
        lines.append(PUBLISHED[network].terms)
    say(network)
    for name, count in found["parameters"].items():
        say(f"  {name:<9} {count / 1e6:6.1f} M parameters")
    for line in lines:
        say(f"  {line}")
    if file is not None and file.layout == "run" and found["kind"] != "evaluation":
        say(next_step(network))
    return {"network": network, "file": network if file is None else str(file.path)} | found


def _midway(file: WeightsFile, release: ReleaseOptions) -> tuple[dict[str, Any], list[str]]:
    """Describe a Midway network by JSON values and by lines of text."""
    unknown: tuple[str, ...] = ()
    try:
        network = build_network(file, release)
    except UnknownHeadsError as error:  # the number of heads changes no tensor's shape
        unknown = error.names
        network = build_network(file, replace(release, **dict.fromkeys(unknown, 1)))
    counts = {
        "encoder": _count(network.encoder),
        "dynamics": _count(network.dynamics),
        "head": _count(network.head),
        "teacher": _count(network.teacher),
    }
    values = to_json(network.config)
    for name in unknown:
        part, field = ("encoder", "heads") if name == "encoder_heads" else ("dynamics", name)
        values[part][field] = None
    number = values["encoder"]["heads"]
    heads = counted(number, "head") if number else "an unknown number of heads"
    found = {"kind": "midway network", "parameters": counts, "config": values}
    return found, _midway_lines(network.config, heads)


def _midway_lines(config: NetworkConfig, heads: str) -> list[str]:
    encoder, dynamics = config.encoder, config.dynamics
    height, width = encoder.image_size
    return [
        f"encoder: width {encoder.width}, {counted(encoder.depth, 'block')}, {heads}, patch "
        f"{encoder.patch_size}, {height}x{width} pixels",
        f"dynamics: levels {', '.join(map(str, dynamics.levels))}, {dynamics.num_latents} motion "
        f"latents of width {dynamics.midway_width}, gates {'on' if dynamics.gates else 'off'}",
    ]


def _other(file: WeightsFile, release: ReleaseOptions) -> tuple[dict[str, Any], list[str]]:
    """Describe a file without a Midway network: parameters by part, and its encoders."""
    kind, lines = _purpose(file)
    origin: dict[str, Any] = {}
    if file.layout == "plain":
        origin, lines = _origin(file, release)
    encoders = {name: build_encoder(file, name, release) for name in file.encoders}
    if file.layout == "plain":
        encoders["encoder"] = build_encoder(file, PREFERRED[0], release)
    counts = {name: _count(encoder) for name, encoder in encoders.items()}
    if not encoders or any(spec.prefix for spec in file.encoders.values()):
        counts = _by_part(file.tensors)  # the file has parts that belong to no encoder
    found = {
        "kind": kind,
        "parameters": counts,
        "encoders": {
            name: {"kind": encoder.kind, "config": to_json(encoder.config)}
            for name, encoder in encoders.items()
        },
    } | origin
    return found, lines + [f"{name}: {_sizes(encoder)}" for name, encoder in encoders.items()]


def _origin(file: WeightsFile, release: ReleaseHints) -> tuple[dict[str, Any], list[str]]:
    """Return layout, authors, licence and unread tensors of a third-party file."""
    foreign = open_foreign(file, PREFERRED[0], release)
    recognised, family = foreign.recognised, foreign.recognised.family
    place = f", {foreign.place}" if foreign.place else ""
    lines = [
        f"layout: {recognised.layout}{place}",
        f"made by: {family.makers}",
        f"licence: {family.licence}",
    ]
    if foreign.others:
        others = shown(other or "the top level" for other in foreign.others)
        lines.append(f"other encoders: {others} (choose by --weights where it is used)")
    if recognised.left_out:
        lines.append(f"left out: {summary(recognised.left_out)}")
    return {
        "layout": recognised.layout,
        "place": foreign.place,
        "makers": family.makers,
        "licence": family.licence,
        "other_encoders": list(foreign.others),
        "left_out": {kind: len(names) for kind, names in recognised.left_out.items()},
    }, lines


def _purpose(file: WeightsFile) -> tuple[str, list[str]]:
    """Return the kind of a file without a Midway network, and lines that describe it."""
    if FLOW in file.header:
        height, width = flow_config(file.path, file.header[FLOW]).crop
        return "flow network", [f"flow network: finetuned on crops of {height}x{width} pixels"]
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


def _history(folder: Path) -> list[str]:
    """Return a line on the data and the last record of a run; none if its log cannot be read."""
    skipped = folder / "skipped.jsonl"
    try:
        data = read_json(folder / "config.json")["data"]["root"]
        # A killed run may leave half a line.
        lines = (folder / "metrics.jsonl").read_text().splitlines(keepends=True)
        last = json.loads([line for line in lines if line.endswith("\n")][-1])
        steps = f"step {last['step']:,} of {round(last['step'] / last['progress']):,}"
        loss = "not finite" if last["loss"] is None else f"{last['loss']:.4g}"
        number = len(skipped.read_text().splitlines()) if skipped.is_file() else 0
    except (MidwayError, OSError, ValueError, LookupError, TypeError, ArithmeticError):
        return []
    return [f"{steps}, loss {loss}; data {data}, {counted(number, 'clip')} skipped"]


def _by_part(tensors: Mapping[str, Any]) -> dict[str, int]:
    """Count the parameters of a state dict by the first component of their names."""
    counts: dict[str, int] = {}
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor):
            part = name.partition(".")[0]
            counts[part] = counts.get(part, 0) + tensor.numel()
    return counts


def _sizes(encoder: Encoder) -> str:
    levels = counted(encoder.depth, "level")
    line = f"{encoder.kind}, {levels}, width {encoder.width}, stride {encoder.stride}"
    if not isinstance(encoder, VisionTransformer):
        return line
    # timm and other code need these two to build the same ViT.
    height, width = encoder.config.image_size
    return f"{line}, {counted(encoder.config.heads, 'head')}, {height}x{width} pixels"


def _count(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
