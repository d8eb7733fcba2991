"""Benchmark of direct reading against frame stores, and a recommendation, from a sample of clips.

Times are those of one core with files in the page cache; a slow disk or network adds to them.
"""

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from midway.data.clip import BadClipError, Clip, ClipReader
from midway.data.clips.store import StoreConfig, read_store, require_store_packages, store_schema
from midway.data.prepare.decode import ClipSource, VideoSource
from midway.data.prepare.pipeline import SizedSource, find_sources
from midway.data.prepare.writer import Row, rows_of
from midway.data.sampling.keyframes import Starts, Targets, frame_times
from midway.data.sampling.timeline import timeline_of
from midway.data.video.file import VideoClip
from midway.data.video.frame_times import read_timing
from midway.errors import MidwayError, counted

SHORT_SIDES = (360, 480, 720)
DIRECT = "the source files"
"""Name of the layout without a store."""
_MAX_TRIES_PER_CLIP = 4


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Settings of the benchmark: sampling of clips and pairs, and durations."""

    num_clips: int = 8
    """Number of clips in the sample."""
    draws_per_clip: int = 5
    """Samples read each time a clip is opened."""
    num_frames: int = 2
    """Frames of a sample; pairs by default."""
    gap_seconds: tuple[float, float] = (0.5, 1.0)
    """Smallest and largest time between neighbouring frames of a sample."""
    starts: Starts = "random"
    """First frames of the samples, as in training; "every_frame" is not measured."""
    targets: Targets = "any"
    """Later frames of the samples, as in training."""
    clip_seconds: float = 10.0
    """Part of each clip in the trial stores."""
    timed_seconds: float = 2.0
    """Duration of the measurement of each layout."""
    seed: int = 0
    """Seed of the clips and the times."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Cost and throughput of one way to store the frames of a folder."""

    name: str
    """`DIRECT`, or the name of a store."""
    short_side: int
    """Shorter side of the frames in pixels."""
    pairs_per_second: float
    """Pairs per second that one core reads and decodes."""
    gigabytes: float
    """Size of the whole folder in this layout."""
    prepare_core_hours: float
    """Core hours to create it; 0 for the source files."""

    def cores(self, pairs_per_second: float) -> int:
        """Return the number of cores that reach a rate."""
        return math.ceil(pairs_per_second / self.pairs_per_second)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """Results of the benchmark, and the size of the sample."""

    layouts: tuple[Layout, ...]
    """The source files, followed by stores of increasing frame size."""
    sampled_clips: int
    """Number of clips in the sample."""
    clips: int
    """Number of clips in the folder."""
    hours: float
    """Duration of all clips, extrapolated from the bytes of the sample."""


def samples_per_second(
    clips: Sequence[Clip], sampling: Sampling, clock: Callable[[], float] = time.perf_counter
) -> float:
    """Return the rate at which one core opens clips, and reads and decodes their samples.

    Every clip is read at least once.

    Args:
        clips: Clips to read in turn.
        sampling: Settings of the benchmark.
        clock: Time in seconds; `time.process_time` leaves out what other processes take.

    Raises:
        BadClipError: A clip cannot be read.
    """
    rng = np.random.default_rng(sampling.seed)
    samples, start = 0, clock()
    for clip in itertools.cycle(clips):
        with clip.open() as reader:
            reader.frames_at(_times(clip, reader, sampling, rng))
        samples += sampling.draws_per_clip
        elapsed = clock() - start
        if elapsed > sampling.timed_seconds and samples >= sampling.draws_per_clip * len(clips):
            return samples / elapsed
    raise ValueError("no clips")


def measure_layouts(
    root: str,
    config: StoreConfig,
    sampling: Sampling,
    *,
    report: Callable[[str], None] = lambda step: None,
) -> Measurement:
    """Read a sample of a folder's clips directly, and from trial stores of several frame sizes.

    Args:
        root: Path or URL of a folder of videos or frames.
        config: Rate and quality of the stores.
        sampling: Settings of the benchmark.
        report: Called with the name of each step.

    Raises:
        MidwayError: No clip of the sample can be read, or an extra is not installed.
    """
    require_store_packages(root)
    found = find_sources(root, source_fps=config.source_fps)
    report("choosing clips")
    chosen = readable_sample(root, found, sampling)
    clips = [clip for _, clip, _ in chosen]
    native = max(short_side for _, _, short_side in chosen)
    num_bytes = sum(each.size for each in found)
    # Assumes the same bitrate in the whole folder as in the sample.
    seconds_per_byte = sum(float(clip.frame_seconds[-1]) for clip in clips) / sum(
        each.size for each, _, _ in chosen
    )
    folder_seconds = num_bytes * seconds_per_byte
    report(f"reading {DIRECT}")
    layouts = [
        Layout(
            name=DIRECT,
            short_side=native,
            pairs_per_second=samples_per_second(clips, sampling),
            gigabytes=num_bytes / 1e9,
            prepare_core_hours=0.0,
        )
    ]
    sources = [each.source for each, _, _ in chosen]
    for short_side in sorted({min(side, native) for side in SHORT_SIDES}):
        report(f"writing and reading a store of short side {short_side}")
        trial = replace(config, short_side=short_side)
        layouts.append(_try_store(sources, trial, sampling, folder_seconds))
    return Measurement(
        layouts=tuple(layouts),
        sampled_clips=len(clips),
        clips=len(found),
        hours=folder_seconds / 3600,
    )


def recommend(
    layouts: Sequence[Layout], *, target_pairs_per_second: float, cores: int
) -> tuple[Layout, str]:
    """Return the recommended layout and the reason.

    The source files if they are fast enough; otherwise the largest frames that are; otherwise the
    fastest layout.

    Args:
        layouts: Layouts, the source files first.
        target_pairs_per_second: Throughput that training needs.
        cores: Number of cores for reading.
    """
    target = f"{target_pairs_per_second:g} pairs/s"
    enough = [each for each in layouts if each.cores(target_pairs_per_second) <= cores]
    if layouts[0] in enough:
        return layouts[
            0
        ], f"{counted(cores, 'core')} can read {target} from them, and no store is needed"
    if enough:
        best = max(enough, key=lambda each: each.short_side)
        return best, (
            f"its frames are the largest that {counted(cores, 'core')} can read at {target}; "
            f"{DIRECT} would need {counted(layouts[0].cores(target_pairs_per_second), 'core')}"
        )
    best = max(layouts, key=lambda each: each.pairs_per_second)
    return best, (
        f"it is the fastest, but {target} need "
        f"{counted(best.cores(target_pairs_per_second), 'core')}, and this machine has {cores}"
    )


def draw_times(last_seconds: float, sampling: Sampling, rng: np.random.Generator) -> list[float]:
    """Draw the frame times of `draws_per_clip` samples; the samples are in order of time."""
    gaps = rng.uniform(*sampling.gap_seconds, sampling.draws_per_clip)
    num_gaps = sampling.num_frames - 1
    latest = max(0.0, last_seconds - num_gaps * sampling.gap_seconds[1])
    starts = np.sort(rng.uniform(0, latest, len(gaps)))
    times = starts[:, None] + gaps[:, None] * np.arange(num_gaps + 1)  # (draws, frames)
    return np.minimum(times, last_seconds).ravel().tolist()


def _times(
    clip: Clip, reader: ClipReader, sampling: Sampling, rng: np.random.Generator
) -> list[float]:
    if sampling.starts == "random" and sampling.targets == "any":
        return draw_times(float(clip.frame_seconds[-1]), sampling, rng)
    timeline = timeline_of(clip, sampling.gap_seconds, sampling.num_frames)
    if not timeline.starts.size:
        raise BadClipError(clip.location, "is too short for a sample", "use longer clips")
    chosen = rng.choice(timeline.starts, sampling.draws_per_clip)
    samples = frame_times(clip, reader, timeline, chosen, rng, sampling.starts, sampling.targets)
    return [seconds + timeline.margin_seconds for sample in samples for seconds in sample]


def readable_sample(
    root: str, found: list[SizedSource], sampling: Sampling
) -> list[tuple[SizedSource, Clip, int]]:
    """Draw readable clips at random; return each with its shorter side in pixels.

    Raises:
        MidwayError: No clip that was drawn can be read.
    """
    order = np.random.default_rng(sampling.seed).permutation(len(found)).tolist()
    chosen: list[tuple[SizedSource, Clip, int]] = []
    failure: BadClipError | None = None
    for place in order[: _MAX_TRIES_PER_CLIP * sampling.num_clips]:
        try:
            clip = _direct_clip(found[place].source)
            with clip.open() as reader:
                # The last frame, because most damaged files are truncated.
                image = reader.frames_at([0.0, float(clip.frame_seconds[-1])])[0].image
        except BadClipError as error:
            failure = error
            continue
        chosen.append((found[place], clip, min(image.shape[:2])))
        if len(chosen) == sampling.num_clips:
            break
    if not chosen:
        raise MidwayError(f"{root}: none of the sampled clips can be read; the last: {failure}")
    return chosen


def _direct_clip(source: ClipSource) -> Clip:
    if not isinstance(source, VideoSource):
        return source
    timing = read_timing(source.location)
    return VideoClip.of(source.name, source.location, timing)


def make_trial_store(
    location: str, sources: Sequence[ClipSource], config: StoreConfig, clip_seconds: float
) -> tuple[int, float]:
    """Write the beginning of each clip into a new store.

    Args:
        location: Path of the store, which must not exist.
        sources: Clips to write.
        config: Settings of the store.
        clip_seconds: Duration to write of each clip.

    Returns:
        Bytes of the JPEGs in the store, and the seconds of video that they cover.

    Raises:
        BadClipError: A clip cannot be read.
    """
    import lance
    import pyarrow as pa

    schema = store_schema(config)
    num_bytes, stored_seconds = 0, 0.0
    lance.write_dataset(schema.empty_table(), location, mode="create")
    for source in sources:
        rows = list(_first_rows(source, config, clip_seconds))
        columns = {name: [getattr(row, name) for row in rows] for name in schema.names}
        lance.write_dataset(pa.table(columns, schema=schema), location, mode="append")
        num_bytes += sum(len(row.jpeg) for row in rows)
        stored_seconds += max(rows[-1].seconds, 1 / config.fps)
    return num_bytes, stored_seconds


def _try_store(
    sources: Sequence[ClipSource], config: StoreConfig, sampling: Sampling, folder_seconds: float
) -> Layout:
    with tempfile.TemporaryDirectory() as folder:
        location = str(Path(folder) / "trial.lance")
        start = time.perf_counter()
        num_bytes, seconds = make_trial_store(location, sources, config, sampling.clip_seconds)
        made_seconds = time.perf_counter() - start
        rate = samples_per_second(read_store(location), sampling)
    return Layout(
        name=f"store at {config.short_side}",
        short_side=config.short_side,
        pairs_per_second=rate,
        gigabytes=num_bytes / seconds * folder_seconds / 1e9,
        prepare_core_hours=made_seconds / seconds * folder_seconds / 3600,
    )


def _first_rows(source: ClipSource, config: StoreConfig, seconds: float) -> Iterator[Row]:
    with closing(rows_of(source, config)) as rows:
        yield from itertools.takewhile(lambda row: row.seconds <= seconds, rows)
