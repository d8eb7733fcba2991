"""Command ``midway prepare``: make a frame store or an index, or recommend a layout."""

import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from math import inf
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from midway.allocator import keep_some_freed_memory
from midway.cli.options import parse, say
from midway.cores import usable_cores
from midway.data.clips.index import is_index
from midway.data.clips.store import StoreConfig
from midway.data.prepare import pipeline as preparation
from midway.data.prepare.index import build_index
from midway.data.prepare.measure import DIRECT, Measurement, Sampling, measure_layouts, recommend
from midway.errors import INTERRUPTED, MidwayError, counted, duration, printable
from midway.progress import ProgressBar

SHOWN_SKIPS = 5
"""Number of skipped clips that are printed."""
RATES = (100, 500, 1000)
"""Pairs per second for which `--measure` computes cores, besides `--target`; one H200 should train
about 1,000."""


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
    target: float | None = None,
    index_only: bool = False,
) -> dict[str, Any]:
    """Write the frames of videos and image sequences into a frame store with fast random access.

    The same command continues after an interruption, and adds new clips.

    Exit code: 0 done, 2 user error (one line), 3 interrupted (run the command again).

    Args:
        source: Path or URL of a video, list of videos or tar file, or of a folder with videos,
            image sequences or both.
        destination: Path or URL of the store, ending in .lance.
        fps: Frames stored per second, at most all of the source.
        short_side: Shorter side of the stored frames in pixels; smaller frames are not enlarged.
        jpeg_quality: JPEG quality from 1 to 100.
        source_fps: Frame rate of image sequences; videos state theirs.
        jobs: Decoding processes; one per core by default.
        ray: Decode on a running Ray cluster; all its machines need source and destination.
        measure: Write nothing; measure layouts on a sample and recommend one.
        target: Pairs per second that training needs, for --measure; 1,000 by default.
        index_only: Write an index of the videos' headers, in the source or at a .jsonl path.

    """
    config = StoreConfig(
        fps=fps, short_side=short_side, jpeg_quality=jpeg_quality, source_fps=source_fps
    )
    if jobs is not None and jobs < 1:
        raise MidwayError(f"--jobs {jobs}: give 1 or more")
    jobs = jobs or usable_cores()
    if measure + index_only + ray > 1:
        raise MidwayError("--measure, --index-only, --ray: exclude each other; give one of them")
    if target is not None and not (measure and 0 < target < inf):
        raise MidwayError(f"--target {target:g}: give a rate above 0, and only with --measure")
    if index_only:
        return _index(source, destination, jobs)
    if measure:
        if destination is not None:
            raise MidwayError(f"--measure: writes nothing; leave {destination} out")
        return _measure(source, config, RATES[-1] if target is None else target)
    if destination is None:
        raise MidwayError("no destination; give a name that ends in .lance after the source")
    return _store(source, destination, config, jobs=jobs, on_ray=ray)


def _store(
    source: str, destination: str, config: StoreConfig, *, jobs: int, on_ray: bool
) -> dict[str, Any]:
    """Write the frame store and print a summary."""
    with ProgressBar("clips") as bar:
        summary = preparation.prepare(
            source, destination, config, jobs=jobs, on_ray=on_ray, report=partial(_update, bar)
        )
    _print_summary(summary)
    if not summary.clips and not summary.interrupted:
        count = len(summary.skipped)
        clips = "its only clip is" if count == 1 else f"all of its {count:,} clips are"
        raise MidwayError(f"{source}: {clips} unreadable; the first: {summary.skipped[0].reason}")
    return asdict(summary) | {
        "skipped": len(summary.skipped),
        "exit_code": INTERRUPTED if summary.interrupted else 0,
    }


def _index(source: str, destination: str | None, jobs: int) -> dict[str, Any]:
    """Write the index and print a summary."""
    if destination is not None and not is_index(destination):
        raise MidwayError(f"{destination}: an index ends in .jsonl; rename it or leave it out")
    with ProgressBar("videos") as bar:
        summary = build_index(
            source,
            destination,
            num_workers=jobs,
            timeout_seconds=preparation.TIMEOUT_SECONDS,
            report=lambda done, total: bar.update(done, total=total),
        )
    say(
        f"{summary.file}: {counted(summary.videos, 'video')}, {summary.unusable:,} unusable, "
        f"{summary.reused:,} reused from an earlier index"
    )
    return asdict(summary)


def _update(bar: ProgressBar, progress: preparation.Progress) -> None:
    text = f"{counted(progress.frames, 'frame')}, {progress.skipped} skipped"
    bar.update(progress.done, total=progress.total, text=text)


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
        say(f"{counted(len(summary.skipped), 'skipped clip')} listed in {summary.skipped_list}")
    if summary.interrupted:
        print("interrupted; run the same command again to continue")


def _measure(source: str, config: StoreConfig, target: float) -> dict[str, Any]:
    """Measure layouts on a sample, and print them with a recommendation."""
    keep_some_freed_memory()  # as the workers of a training do
    with ProgressBar("layouts") as bar:
        found = measure_layouts(
            source, config, Sampling(), report=lambda text: bar.update(text=printable(text))
        )
    cores, rates = usable_cores(), tuple(sorted({*RATES, target}))
    choice, why = recommend(found.layouts, target_pairs_per_second=target, cores=cores)
    _print_layouts(source, found, rates)
    say(f"recommended: {choice.name} ({why})")
    if choice.name != DIRECT:
        say(f"make it: {_command(source, replace(config, short_side=choice.short_side))}")
    return {
        "source": source,
        "clips": found.clips,
        "sampled_clips": found.sampled_clips,
        "hours": found.hours,
        "layouts": [
            asdict(each) | {"cores": {f"{rate:g}": each.cores(rate) for rate in rates}}
            for each in found.layouts
        ],
        "target": target,
        "cores": cores,
        "choice": choice.name,
        "why": why,
    }


def _command(source: str, config: StoreConfig) -> str:
    """Return the command that makes a store with these settings."""
    words = ["midway", "prepare", source, f"{Path(source).name or 'frames'}.lance"]
    words += ["--short-side", str(config.short_side)]
    for name in ("fps", "jpeg_quality", "source_fps"):
        if getattr(config, name) != getattr(StoreConfig, name):
            words += [f"--{name.replace('_', '-')}", f"{getattr(config, name):g}"]
    return shlex.join(words)


def _print_layouts(source: str, found: Measurement, rates: Sequence[float]) -> None:
    cores_for = f"cores for {' / '.join(f'{rate:g}' for rate in rates)}"
    title = f"{source}: {counted(found.clips, 'clip')}, about {duration(3600 * found.hours)}"
    columns = ("layout", "pairs/s", "GB", cores_for, "hours to make")
    table = Table(*columns, title=escape(printable(title)))
    for each in found.layouts:
        table.add_row(
            each.name,
            f"{each.pairs_per_second:.1f}",
            f"{each.gigabytes:.2f}",
            " / ".join(str(each.cores(rate)) for rate in rates),
            f"{each.prepare_core_hours:.2f}",
        )
    Console(file=sys.stdout).print(table)
    print(
        f"pairs/s and hours of one core, measured on {counted(found.sampled_clips, 'clip')}, read "
        "from memory; GB and hours are extrapolated to all clips"
    )
