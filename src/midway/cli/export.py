"""midway export SOURCE TARGET: from any readable network to .safetensors or release .pth."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from midway.cli.options import NOTHING_TOLD, ToldOptions, parse
from midway.errors import MidwayError
from midway.models.network_file import read_network_file
from midway.models.weights import build, save


def main(words: Sequence[str]) -> dict[str, Any]:
    """Read a network and write it in another format."""
    return parse(export, words, prog="midway export")


def export(
    source: Path,
    target: Path,
    /,
    told: ToldOptions = NOTHING_TOLD,
    overwrite: bool = False,
    half: bool = False,
) -> dict[str, Any]:
    """Write a network as .safetensors, or as .pth in the release's layout.

    Args:
        source: Release .pth, run folder, .ckpt or .safetensors.
        target: New file; its suffix tells the format.
        told: For a release file, where its arguments are silent or wrong.
        overwrite: Replace a file that is there.
        half: Round the weights to half precision, for a file of half the size.

    """
    if target.exists() and not overwrite:
        raise MidwayError(f"{target}: is there already; choose another name or give --overwrite")
    save(build(read_network_file(source), told), target, half=half)
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")
    return {"source": str(source), "target": str(target), "bytes": target.stat().st_size}
