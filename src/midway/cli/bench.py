"""midway bench data: what each stage costs on this machine."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, Literal

import torch
from rich.console import Console
from rich.table import Table

from midway.bench.data import STAGES, DataBenchmark, LayoutTimes
from midway.cli.options import parse
from midway.data.measure import Sampling
from midway.data.store import StoreConfig, require_store_packages
from midway.errors import MidwayError

BENCHMARKS = ("data",)
NEEDED_PAIRS_PER_SECOND = 1000
"""What one H200 can train."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Run a benchmark."""
    if not words or words[0] not in (*BENCHMARKS, "-h", "--help"):
        raise MidwayError(f"name a benchmark: midway bench {' | '.join(BENCHMARKS)}")
    return parse(data, words[1:] if words[0] in BENCHMARKS else words, prog="midway bench data")


def data(
    root: str | None = None,
    /,
    short_sides: tuple[int, ...] = (480, 720),
    batch_size: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    seed: int = 0,
) -> dict[str, Any]:
    """Time every stage from a file to the views of a pair, on one core, for each layout.

    Args:
        root: Folder of videos or of frames; without one, 720p videos are made and measured.
        short_sides: Sizes of the frame stores that are tried, in pixels.
        batch_size: Pairs whose views are made at once; 8 on a CPU, 128 elsewhere.
        device: Where views are made.
        seed: Of the sample and the pairs.

    """
    if device == "cuda" and not torch.cuda.is_available():
        raise MidwayError("--device cuda: no GPU that torch can use; leave it out")
    if batch_size is not None and batch_size < 1:
        raise MidwayError(f"--batch-size {batch_size}: give 1 or more")
    for side in short_sides:
        StoreConfig(short_side=side)  # says what is wrong with it before anything is measured
    if short_sides:
        require_store_packages("--short-sides")
    console = Console(stderr=True)
    with console.status("measuring") as status:
        benchmark = DataBenchmark(
            sampling=Sampling(seed=seed),
            short_sides=short_sides,
            store=StoreConfig(),
            device=torch.device(device),
            batch_size=batch_size or (8 if device == "cpu" else 128),
            tell=lambda what: status.update(what),
        )
        layouts = benchmark.run(root)
    _print(layouts)
    return {
        "root": root,
        "draws_per_clip": benchmark.sampling.draws_per_clip,
        "batch_size": benchmark.batch_size,
        "device": device,
        "layouts": [asdict(each) | {"limit": each.limit} for each in layouts],
    }


def _print(layouts: Sequence[LayoutTimes]) -> None:
    table = Table(
        *("layout", "pairs/s", *STAGES, "views by Pillow"),
        title="pairs/s opened, read and decoded; milliseconds a pair; all of one core",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for each in layouts:
        table.add_row(
            each.layout,
            f"{each.pairs_per_second:.1f}",
            *(f"{getattr(each, stage):.2f}" for stage in STAGES),
            "" if each.plain_views is None else f"{each.plain_views:.1f}",
        )
    Console().print(table)
    for each in layouts:
        cores = NEEDED_PAIRS_PER_SECOND / each.pairs_per_second
        print(
            f"{each.layout}: {each.limit} takes longest; {cores:.1f} cores read "
            f"{NEEDED_PAIRS_PER_SECOND} pairs/s"
        )
