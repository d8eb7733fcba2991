"""Command ``midway prepare``: make a frame store or an index, or recommend a layout."""

import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import partial
from types import FrameType
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from midway.cli.options import parse
from midway.data.clips.index import is_index
from midway.data.clips.store import StoreConfig
from midway.data.prepare import pipeline as preparation
from midway.data.prepare.index import build_index
from midway.data.prepare.measure import Measurement, Sampling, measure_layouts, recommend
from midway.errors import INTERRUPTED, MidwayError

SHOWN_SKIPS = 5
"""Number of skipped clips that are printed."""
RATES = (100, 500, 1000)
"""Pairs per second for which `--measure` computes cores; one H200 should train about 1,000."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Make a frame store or an index, or recommend a layout."""
    return parse(prepare, words, prog="midway prepare")


def prepare(
    source: Annotated[str, tyro.conf.arg(metavar="SOURCE")],
    destination: Annotated[str | None, tyro.conf.arg(metavar="[DESTINATION]")] = None,
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
    """Write the frames of videos and image sequences into a frame store with fast random access.

    The same command continues after an interruption, and adds new clips.

    Exit code: 0 done, 2 user error (one line), 3 interrupted (run the command again).

    Args:
        source: Path or URL of a video, or of a folder with videos, image sequences or both.
        destination: Path or URL of the store, ending in .lance.
        fps: Frames stored per second, at most all of the source.
        short_side: Shorter side of the stored frames in pixels; smaller frames are not enlarged.
        jpeg_quality: JPEG quality from 1 to 100.
        source_fps: Frame rate of image sequences; videos state theirs.
        jobs: Decoding processes; one per core by default.
        ray: Decode on a running Ray cluster; all its machines need source and destination.
        measure: Write nothing; measure layouts on a sample and recommend one.
        index_only: Write an index of the videos' headers, in the source or at a .jsonl path.

    """
    config = StoreConfig(
        fps=fps, short_side=short_side, jpeg_quality=jpeg_quality, source_fps=source_fps
    )
    if jobs is not None and jobs < 1:
        raise MidwayError(f"--jobs {jobs}: give 1 or more")
    jobs = jobs or _num_cores()
    if measure + index_only + ray > 1:
        raise MidwayError("--measure, --index-only, --ray: exclude each other; give one of them")
    if index_only:
        return _index(source, destination, jobs)
    if measure:
        if destination is not None:
            raise MidwayError(f"--measure: writes nothing; leave {destination} out")
        return _measure(source, config)
    if destination is None:
        raise MidwayError("no destination; give a name that ends in .lance after the source")
    return _store(source, destination, config, jobs=jobs, on_ray=ray)


def _store(
    source: str, destination: str, config: StoreConfig, *, jobs: int, on_ray: bool
) -> dict[str, Any]:
    """Write the frame store and print a summary."""
    with _bar("clips") as bar, _sigterm_as_interrupt():
        summary = preparation.prepare(
            source, destination, config, jobs=jobs, on_ray=on_ray, tell=partial(_update, bar)
        )
    _print_summary(summary)
    if not summary.clips and not summary.interrupted:
        raise MidwayError(
            f"{source}: all of its {len(summary.skipped)} clips are unreadable; the first: "
            f"{summary.skipped[0].reason}"
        )
    return asdict(summary) | {
        "skipped": len(summary.skipped),
        "exit_code": INTERRUPTED if summary.interrupted else 0,
    }


def _index(source: str, destination: str | None, jobs: int) -> dict[str, Any]:
    """Write the index and print a summary."""
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
    print(
        f"{summary.file}: {summary.videos:,} videos, {summary.unusable:,} of them unusable; "
        f"{summary.reused:,} entries reused"
    )
    return asdict(summary)


def _num_cores() -> int:
    # Under a scheduler, a process may use fewer cores than the machine has.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Raise KeyboardInterrupt on SIGTERM, as on Ctrl-C."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


@contextmanager
def _bar(text: str) -> Iterator[Callable[[str, int, int], None]]:
    """Show a progress bar if stderr is a terminal; yield a function of text, done and total."""
    console = Console(stderr=True)
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task(text, total=None)
        yield lambda text, done, total: bar.update(
            task, description=text, completed=done, total=total
        )


def _update(bar: Callable[[str, int, int], None], progress: preparation.Progress) -> None:
    text = f"{progress.frames:,} frames, {progress.skipped} skipped; clips"
    bar(text, progress.done, progress.total)


def _print_summary(summary: preparation.PrepareSummary) -> None:
    table = Table("", "clips", "frames", "GB", "skipped", title=summary.destination)
    table.add_row(
        "in the store",
        f"{summary.clips:,}",
        f"{summary.frames:,}",
        f"{summary.bytes / 1e9:.3f}",
        f"{len(summary.skipped):,}",
    )
    Console(file=sys.stdout).print(table)
    for skipped in summary.skipped[:SHOWN_SKIPS]:
        print(f"skipped: {skipped.reason}")
    if summary.skipped_list:
        print(f"all {len(summary.skipped)} skipped: {summary.skipped_list}")
    if summary.interrupted:
        print("interrupted; run the same command again to continue")


def _measure(source: str, config: StoreConfig) -> dict[str, Any]:
    """Measure layouts on a sample, and print them with a recommendation."""
    console = Console(stderr=True)
    with console.status("measuring") as status:
        found = measure_layouts(source, config, Sampling(), tell=lambda text: status.update(text))
    cores = _num_cores()
    choice, why = recommend(found.layouts, target_pairs_per_second=RATES[-1], cores=cores)
    _print_layouts(source, found)
    print(f"recommended: {choice.name} ({why})")
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
    table = Table("layout", "pairs/s", "GB", f"cores for {rates}", "hours to make", title=title)
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
        f"pairs/s and hours of one core, measured on {found.sampled_clips} clips with their files "
        "in memory; GB and hours are extrapolated to all clips"
    )
