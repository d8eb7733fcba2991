"""Writer of the page: its static files, clips, and the network as an ONNX file."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import as_file, files
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from midway.analysis.inputs import suited_window
from midway.analysis.perturbation import check_level
from midway.atomic import write_atomically
from midway.demo.clips import BUNDLED, write_bundled, write_video_clip
from midway.demo.part import PagePart
from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD
from midway.progress import ProgressBar, progress

MODEL = "network.onnx"
MAX_PAGE_MEGABYTES = 40
"""Largest weights in float32 that the page computes with by itself; others are for the server."""
LONGEST_SIDE = {"frame": 640, "window": 1280}
"""Longest side of the page's frames in pixels, by the part of them that the network sees. Longer
ones are reduced; windows keep more, because the network sees half the resolution of the file."""
TOKENS_AT_ONCE = {"page": 12, "server": 4}
"""Largest number of patches in a request, by the place of the computation; it bounds memory."""


@dataclass(frozen=True, kw_only=True)
class Shown:
    """Network of a page, and the place of its computation."""

    name: str
    network: MidwayNetwork
    level: int
    compute: Literal["page", "server"]
    """Place of the computation."""
    window: int = 0
    """Side in pixels of the square around a point that the network sees; 0 for whole frames."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the network's input: those of its training, or of a square window."""
        height, width = self.network.config.encoder.image_size
        side = min(height, width)
        return (side, side) if self.window else (height, width)


def open_shown(name: str, level: int | None, window: int | None = None) -> Shown:
    """Load a network, and let the page compute with it if it is small.

    Args:
        name: Run folder, file, hub id or name of a Midway network.
        level: Level of heatmaps, tracks and gates; the highest one if None.
        window: Side in pixels of the square around a point that the network sees; 0 for whole
            frames; if None, the one that suits the network.

    Raises:
        MidwayError: There is no such network, it is a flow network, the level has no forward model,
            or the window is negative.

    """
    if window is not None and window < 0:
        raise MidwayError(f"--window {window}: give 1 or more pixels, or 0 for whole frames")
    network = load(name)
    window = suited_window(network) if window is None else window
    level = network.config.dynamics.levels[-1] if level is None else level
    check_level(network, level)
    megabytes = 4e-6 * sum(each.numel() for each in network.parameters())
    compute = "page" if megabytes <= MAX_PAGE_MEGABYTES else "server"
    return Shown(name=name, network=network, level=level, compute=compute, window=window)


def write_page(folder: Path, shown: Shown, videos: Sequence[Path] = ()) -> None:
    """Write everything that the page needs, for any file server.

    Args:
        folder: Existing folder; files of the same names are replaced.
        shown: Network. The page contains it if it is small, and needs `midway.demo.app` otherwise.
        videos: The user's videos, shown before the bundled clips.

    Raises:
        BadClipError: A file is not a video, has a single frame or cannot be decoded.
        MidwayError: The packages for ONNX are missing.

    """
    if shown.compute == "page":
        _check_installed()
    longest = LONGEST_SIDE["window" if shown.window else "frame"]
    clips = [
        write_video_clip(folder, f"clip_{i}", video, longest_side=longest)
        for i, video in enumerate(videos)
    ]
    clips += [write_bundled(folder, clip) for clip in progress(BUNDLED, "clips")]
    with as_file(files("midway.demo") / "page") as page:
        shutil.copytree(page, folder, dirs_exist_ok=True)
    if shown.compute == "page":
        # Exporting imports ONNX, which only some installations have.
        from midway.export.onnx import write_onnx

        part = PagePart(shown.network, shown.size, level=shown.level).eval()
        with ProgressBar("exporting the network", transient=True):
            write_onnx(part, folder / MODEL, part.facts)
    _write_json(folder / "page.json", {"network": _described(shown), "clips": clips})


def check_static(shown: Shown, folder: Path) -> None:
    """Check that a page of this network works without our server.

    Raises:
        MidwayError: The network is too large.

    """
    if shown.compute != "page":
        raise MidwayError(
            f"{folder}: {shown.name} has more than {MAX_PAGE_MEGABYTES} MB, which is too slow "
            "inside a page; leave out --out, so that the server computes"
        )


def _check_installed() -> None:
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if find_spec(name) is None]
    if missing:
        raise MidwayError(
            f"page: a network inside it needs {' and '.join(missing)}; pip install "
            "'midway-network[onnx]'"
        )


def _described(shown: Shown) -> dict[str, Any]:
    """Return the page's description of its network."""
    encoder, is_in_page = shown.network.config.encoder, shown.compute == "page"
    return {
        "name": shown.name,
        "level": shown.level,
        "compute": shown.compute,
        "model": MODEL,
        "patch": encoder.patch_size,
        "width": encoder.width,
        # An ONNX file takes images of one size; the server takes any, and windows are square.
        "size": shown.size if is_in_page and not shown.window else None,
        "shortSide": min(shown.size),
        "window": shown.window,
        "longestSide": LONGEST_SIDE["window" if shown.window else "frame"],
        "tokensAtOnce": TOKENS_AT_ONCE[shown.compute],
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
    }


def _write_json(path: Path, value: dict[str, Any]) -> None:
    content = json.dumps(value, indent=1).encode()
    write_atomically(path, lambda file: file.write(content))
