"""Command ``midway demo``: a page on which a click shows where a patch went."""

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, Any

import tyro

from midway.cli.options import parse, say
from midway.cli.perturb import SHIPPED
from midway.demo.app import DemoServer, looker
from midway.demo.writer import check_static, open_shown, write_page
from midway.errors import MidwayError

LOOPBACK = "127.0.0.1"


def main(words: Sequence[str]) -> dict[str, Any]:
    """Serve or write the page."""
    return parse(demo, words, prog="midway demo")


def demo(
    videos: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="[VIDEO ...]")] = (),
    /,
    *,
    network: str = SHIPPED,
    level: int | None = None,
    window: int | None = None,
    out: Path | None = None,
    host: str = LOOPBACK,
    port: int = 8000,
) -> dict[str, Any]:
    """Serve a page on which a click in one frame shows where the patch is in another.

    The browser computes by itself with networks of at most 40 MB (`pip install
    'midway-network[onnx]'`), and this process with others. Videos dropped on the page stay in the
    browser; this process gets pairs of frames at most.

    Args:
        videos: Video files to choose on the page, besides the bundled clips.
        network: Midway network: a run folder, a file, a hub id, or a name of midway list networks.
        level: Level of heatmaps, tracks and gates; by default the highest one.
        window: Side in pixels of the square around a point that the network sees; 0 for frames. By
            default twice the training size if that is below 128.
        out: Folder to write the page to, for any file server, instead of serving it.
        host: Address to listen on; 0.0.0.0 lets others on your network in.
        port: Port to listen on; 0 for any free one.
    """
    for video in videos:
        if not video.exists():
            raise MidwayError(f"{video}: no such file; check the path")
    shown = open_shown(network, level, window)
    if out is not None:
        check_static(shown, out)
        out.mkdir(parents=True, exist_ok=True)
        write_page(out, shown, videos)
        say(f"{out}: page with {network}; serve it with python -m http.server -d {out}")
        return {"out": str(out), "network": network}
    encoder = shown.network.config.encoder
    look = looker(shown) if shown.compute == "server" else None
    with TemporaryDirectory(prefix="midway-demo-") as folder:
        # The port first: writing the page takes seconds.
        sizes = {"patch": encoder.patch_size, "dim": encoder.width}
        with DemoServer(Path(folder), look, **sizes, host=host, port=port) as server:
            write_page(Path(folder), shown, videos)
            where = "in the page" if look is None else "here"
            say(f"{server.address}  {network}, computed {where}; Ctrl-C ends it")
            with suppress(KeyboardInterrupt):  # which is how a server ends
                server.serve_forever()
    return {"address": server.address, "network": network}
