"""Command ``midway export NETWORK TARGET``: convert a network or its encoder to another format."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from midway.cli.options import NO_HINTS, ReleaseOptions, parse, say
from midway.errors import MidwayError
from midway.export.open import Kind, PartOptions, open_part
from midway.export.write import FORMATS, write_part
from midway.models.encoders.base import Encoder
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import build_network
from midway.models.weights.save import SUFFIXES, save
from midway.models.weights.sources import load_encoder, read_source


def main(words: Sequence[str]) -> dict[str, Any]:
    """Read a network and write it in another format."""
    return parse(export, words, prog="midway export")


def export(
    network: Annotated[str, tyro.conf.arg(metavar="NETWORK")],
    target: Annotated[Path, tyro.conf.arg(metavar="TARGET")],
    /,
    part: Kind | None = None,
    weights: str = "",
    size: tuple[int, int] | None = None,
    level: tuple[int, ...] = (),
    draws: int = 16,
    seed: int = 0,
    radius: int = 5,
    release: ReleaseOptions = NO_HINTS,
    overwrite: bool = False,
    half: bool = False,
) -> dict[str, Any]:
    """Write a network or a part of it as .onnx, .pt2 (torch.export), .safetensors or release .pth.

    Files of .onnx and .pt2 compute one part for images of one size, in batches of any size. They
    are checked against torch.

    Args:
        network: Run folder, release .pth, .ckpt, .safetensors, name or hub id, timm:NAME.
        target: Output file; its suffix selects the format.
        part: Part to write: encoder, network (default if there is one), heatmap of perturbations
            with the source patch as an input (.onnx, .pt2), or flow (.onnx, .pt2).
        weights: Encoder to export, such as teacher; by default the network or its only encoder.
        size: Height and width of the images of .onnx and .pt2; by default the training size.
        level: Levels of an encoder's maps (default: top), or level of heatmap and flow (default:
            lowest), in .onnx and .pt2.
        draws: Random directions that a heatmap averages.
        seed: Seed of the directions.
        radius: Search radius in patches, of flow without a finetuned flow network.
        release: Overrides for a release file that lacks these values or states wrong ones.
        overwrite: Replace an existing file.
        half: Store weights in half precision, which halves the size of a .safetensors or .pth.

    """
    if target.exists() and not overwrite:
        raise MidwayError(f"{target}: exists already; choose another name or give --overwrite")
    options = PartOptions(
        kind=part,
        weights=weights,
        size=size,
        levels=level,
        draws=draws,
        seed=seed,
        radius=radius,
    )
    result = {"network": network, "target": str(target)}
    if target.suffix not in (*FORMATS, *SUFFIXES):
        names = ", ".join((*FORMATS, *SUFFIXES))
        raise MidwayError(f"{target}: unknown format; give a name ending in one of {names}")
    if target.suffix in FORMATS:
        if half:
            raise MidwayError(f"{target}: half is for .safetensors and .pth; leave it out")
        result |= _write_program(network, target, options, release)
    else:
        _write_weights(network, target, options, release, half=half)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return {**result, "bytes": target.stat().st_size}


def _write_program(
    network: str, target: Path, options: PartOptions, release: ReleaseOptions
) -> dict[str, Any]:
    part = open_part(network, options, release)
    differences = write_part(part, target)
    outputs = ", ".join(differences) if len(differences) < 4 else f"{len(differences)} outputs"
    say(
        f"{part.name}, {part.size[0]} x {part.size[1]} pixels: {', '.join(part.inputs)} to "
        f"{outputs}; largest difference from torch {max(differences.values()):.1e}"
    )
    return {"part": part.name, "size": part.size, "differences": differences}


def _write_weights(
    network: str, target: Path, options: PartOptions, release: ReleaseOptions, *, half: bool
) -> None:
    if options.kind in ("heatmap", "flow"):
        raise MidwayError(
            f"{target}: part {options.kind} is a computation, not weights; give a name ending in "
            ".onnx or .pt2"
        )
    plain = PartOptions(kind=options.kind, weights=options.weights)
    if options != plain:
        raise MidwayError(
            f"{target}: size, level, draws, seed and radius are for .onnx and .pt2; leave them out"
        )
    save(opened(network, options, release), target, half=half)


def opened(network: str, options: PartOptions, release: ReleaseOptions) -> MidwayNetwork | Encoder:
    """Open a whole network, or the encoder that the options name.

    Raises:
        MidwayError: There is no such network or encoder.

    """
    if not options.weights and options.kind != "encoder":
        file = read_source(network)
        if file is not None and file.has_network:
            return build_network(file, release)
    if options.kind == "network":
        raise MidwayError(
            f"{network}: no whole network; give --part encoder, or leave out --weights"
        )
    weights = options.weights or ("teacher" if options.kind else "")
    return load_encoder(network, weights=weights, hints=release)
