"""Command ``midway export NETWORK TARGET``: convert a network or its encoder to another format."""

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
    """Write a network or one of its encoders as .safetensors, or in the release's .pth layout.

    Args:
        network: Run folder, release .pth, .ckpt, .safetensors, name or hub id, timm:NAME.
        target: Output file; its suffix selects the format.
        weights: Encoder to export, such as teacher; by default the network or its only encoder.
        release: Overrides for a release file that lacks these values or states wrong ones.
        overwrite: Replace an existing file.
        half: Store weights in half precision, which halves the size of the file.

    """
    if target.exists() and not overwrite:
        raise MidwayError(f"{target}: exists already; choose another name or give --overwrite")
    save(_opened(network, weights, release), target, half=half)
    say(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return {"network": network, "target": str(target), "bytes": target.stat().st_size}


def _opened(network: str, weights: str, release: ReleaseOptions) -> MidwayNetwork | Encoder:
    if not weights:
        file = read_source(network)
        if file is not None and file.has_network:
            return build_network(file, release)
    return load_encoder(network, weights=weights, hints=release)
