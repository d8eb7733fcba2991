"""midway export NETWORK TARGET: write a network, or its encoder, to another file."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from midway.cli.options import NO_HINTS, ReleaseOptions, parse, say
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import build_network
from midway.models.weights.save import save
from midway.models.weights.sources import load_encoder, read_source


def main(words: Sequence[str]) -> dict[str, Any]:
    """Read a network and write it in another format."""
    return parse(export, words, prog="midway export")


def export(
    network: Annotated[str, tyro.conf.arg(metavar="NETWORK")],
    target: Annotated[Path, tyro.conf.arg(metavar="TARGET")],
    /,
    weights: str = "",
    release: ReleaseOptions = NO_HINTS,
    overwrite: bool = False,
    half: bool = False,
) -> dict[str, Any]:
    """Write a network as .safetensors or in the release's .pth layout, or its encoder alone.

    Args:
        network: Run folder of any method, release .pth, .ckpt, .safetensors, hub id, timm:NAME.
        target: New file; its suffix tells the format.
        weights: Export this encoder alone: teacher, student, or another name that the run has;
            needed unless a Midway network is to be written or there is only one encoder.
        release: For a release file, where its arguments are silent or wrong.
        overwrite: Replace a file that is there.
        half: Round the weights to half precision, for a file of half the size.

    """
    if target.exists() and not overwrite:
        raise MidwayError(f"{target}: is there already; choose another name or give --overwrite")
    save(_opened(network, weights, release), target, half=half)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return {"network": network, "target": str(target), "bytes": target.stat().st_size}


def _opened(network: str, weights: str, release: ReleaseOptions) -> MidwayNetwork | Encoder:
    if not weights:
        file = read_source(network)
        if file is not None and file.has_network:
            return build_network(file, release)
    return load_encoder(network, weights=weights, hints=release)
