"""midway prepare SRC DST.lance | midway prepare SRC --measure | midway prepare SRC --index-only."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from midway.cli.options import parse, say
from midway.data.clips.index import is_index
from midway.data.clips.store import StoreConfig
from midway.data.prepare import pipeline as preparation
from midway.data.prepare.index import build_index
from midway.data.prepare.measure import Measurement, Sampling, measure_layouts, recommend
from midway.errors import INTERRUPTED, MidwayError, printable

SHOWN_SKIPS = 5
RATES = (100, 500, 1000)
"""Pairs a second that `--measure` counts cores for; one H200 trains about 1,000."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Make a frame store of videos and frames, or measure whether one is worth making."""
    return parse(prepare, words, prog="midway prepare")


def prepare(
    source: str,
    destination: str | None = None,
    /,
    fps: float = StoreConfig.fps,
    short_side: int = StoreConfig.short_side,
    jpeg_quality: int = StoreConfig.jpeg_quality,
    source_fps: float = StoreConfig.source_fps,
    jobs: int | None = None,
    ray: bool = False,
    measure: bool = False,
    index_only: bool = False,
) -> dict[str, Any]:
    """Write the frames of a folder of videos or images into a frame store, which reads fast.

    Run the same command again to go on after an interruption, or to add what is new. Exit code:
    0 done, 2 an error told in one line, 3 interrupted (run it again to go on).

    Args:
        source: Folder of videos, of folders of frames, or of both; or one video. Path or URL.
        destination: The store, a path or URL that ends in .lance.
        fps: Frames kept a second; a slower source gives all it has.
        short_side: Pixels of the shorter side; smaller frames stay as they are.
        jpeg_quality: From 1 to 100.
        source_fps: Rate at which the numbers of frame files count; videos know their own.
        jobs: Processes that decode; one a core unless given.
        ray: Decode on the Ray cluster that runs; its machines must all see source and destination.
        measure: Make no store, but try layouts on a sample and say which to choose.
        index_only: Make no store, but read the headers of all videos into an index, with which
            training on the videos themselves starts in seconds. It is kept in the source, or where
            a destination that ends in .jsonl says; data.root may then name that.

    """
    config = StoreConfig(
        fps=fps, short_side=short_side, jpeg_quality=jpeg_quality, source_fps=source_fps
    )
    if jobs is not None and jobs < 1:
        raise MidwayError(f"--jobs {jobs}: give 1 or more")
    jobs = jobs or _num_cores()
    if measure + index_only + ray > 1:
        raise MidwayError("--measure, --index-only and --ray: give one of them")
    if index_only:
        return _index(source, destination, jobs)
    if measure:
        if destination is not None:
            raise MidwayError(f"--measure: writes nothing; leave {destination} out")
        return _measure(source, config)
    if destination is None:
        raise MidwayError("no destination; give a name that ends in .lance behind the source")
    with _bar("clips") as bar:
        summary = preparation.prepare(
            source, destination, config, jobs=jobs, on_ray=ray, tell=partial(_tell, bar)
        )
    _print_summary(summary)
    if not summary.clips and not summary.interrupted:
        raise MidwayError(
            f"{source}: none of its {len(summary.skipped)} clips could be read; the first: "
            f"{summary.skipped[0].reason}"
        )
    return asdict(summary) | {
        "skipped": len(summary.skipped),
        "exit_code": INTERRUPTED if summary.interrupted else 0,
    }


def _index(source: str, destination: str | None, jobs: int) -> dict[str, Any]:
    if destination is not None and not is_index(destination):
        raise MidwayError(f"{destination}: an index ends in .jsonl; rename it or leave it out")
    with _bar("videos") as bar:
        summary = build_index(
            source,
            destination,
            num_workers=jobs,
            timeout_seconds=preparation.TIMEOUT_SECONDS,
            tell=lambda done, total: bar("videos", done, total),
        )
    say(
        f"{summary.file}: {summary.videos:,} videos, {summary.unusable:,} of them unusable, "
        f"{summary.reused:,} known from before"
    )
    return asdict(summary)


def _num_cores() -> int:
    # Where a scheduler gives a part of a machine, only that part counts.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _bar(what: str) -> Iterator[Callable[[str, int, int], None]]:
    """A bar on a terminal, nothing elsewhere; takes a text, how many are done, and of how many."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda text, done, total: bar.update(
            task, description=text, completed=done, total=total
        )


def _tell(bar: Callable[[str, int, int], None], progress: preparation.Progress) -> None:
    text = f"{progress.frames:,} frames, {progress.skipped} skipped; clips"
    bar(text, progress.done, progress.total)


def _print_summary(summary: preparation.PrepareSummary) -> None:
    table = Table(
        "", "clips", "frames", "GB", "skipped", title=escape(printable(summary.destination))
    )
    table.add_row(
        "in the store",
        f"{summary.clips:,}",
        f"{summary.frames:,}",
        f"{summary.bytes / 1e9:.3f}",
        f"{len(summary.skipped):,}",
    )
    Console(file=sys.stdout).print(table)
    for skipped in summary.skipped[:SHOWN_SKIPS]:
        say(f"skipped: {skipped.reason}")
    if summary.skipped_list:
        say(f"all {len(summary.skipped)} skipped: {summary.skipped_list}")
    if summary.interrupted:
        print("interrupted; run the same command to go on")


def _measure(source: str, config: StoreConfig) -> dict[str, Any]:
    console = Console(stderr=True)
    with console.status("measuring") as status:
        found = measure_layouts(
            source, config, Sampling(), tell=lambda what: status.update(Text(printable(what)))
        )
    cores = _num_cores()
    choice, why = recommend(found.layouts, target_pairs_per_second=RATES[-1], cores=cores)
    _print_layouts(source, found)
    say(f"choose {choice.name}: {why}")
    return {
        "source": source,
        "clips": found.clips,
        "sampled_clips": found.sampled_clips,
        "hours": found.hours,
        "layouts": [
            asdict(each) | {"cores": {str(rate): each.cores(rate) for rate in RATES}}
            for each in found.layouts
        ],
        "cores": cores,
        "choice": choice.name,
        "why": why,
    }


def _print_layouts(source: str, found: Measurement) -> None:
    rates = " / ".join(str(rate) for rate in RATES)
    title = f"{source}: {found.clips:,} clips, about {found.hours:.1f} h"
    columns = ("layout", "pairs/s", "GB", f"cores for {rates}", "hours to make")
    table = Table(*columns, title=escape(printable(title)))
    for each in found.layouts:
        table.add_row(
            each.name,
            f"{each.pairs_per_second:.1f}",
            f"{each.gigabytes:.2f}",
            " / ".join(str(each.cores(rate)) for rate in RATES),
            f"{each.prepare_core_hours:.2f}",
        )
    Console(file=sys.stdout).print(table)
    print(
        f"pairs/s and hours are those of one core, measured on {found.sampled_clips} clips with "
        "their files in memory; GB and hours are extrapolated to all"
    )
