"""Benchmark of reading pairs of frames: cost of each stage from the file to the views, by layout.

Rates count pairs, whichever method is trained, except that of clips of more frames.
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from midway.allocator import keep_some_freed_memory
from midway.bench.clips import make_clip
from midway.bench.views import FramePair, time_device_views, time_views
from midway.data.clip import Clip
from midway.data.clips.store import StoreClip, StoreConfig, open_store, read_store
from midway.data.prepare.measure import (
    DIRECT,
    Sampling,
    draw_times,
    make_trial_store,
    readable_sample,
    samples_per_second,
)
from midway.data.prepare.pipeline import find_sources
from midway.data.video.file import VideoClip, VideoFile
from midway.data.video.header import OpenStream, bad_clip_errors, open_stream
from midway.progress import progress

MADE_GOPS = (30, 250)
"""Frames between the keyframes of the generated videos."""
MADE_CLIPS = 2
"""Number of generated videos for each distance of keyframes."""
STAGES = ("open", "seek", "decode", "transfer", "views")
_ROUNDS = 3
"""Rounds in which random pairs and those at keyframes alternate."""
_SEEK_PAIRS = 50
"""Smallest number of pairs for which opening and seeking are timed."""


@dataclass(frozen=True, kw_only=True)
class KeyframeRates:
    """Pairs per second of CPU time, opened, read and decoded; medians of alternating rounds."""

    random: float
    """Pairs that start at random frames."""
    starts: float
    """Pairs that start at keyframes."""
    both: float
    """Pairs that start at keyframes, and end at one if the allowed gaps contain one."""


@dataclass(frozen=True, kw_only=True)
class LayoutTimes:
    """Cost of each stage in milliseconds of one core per pair, and the reading rate."""

    layout: str
    short_side: int
    """Shorter side of the frames in pixels."""
    pairs_per_second: float
    """Pairs opened, read and decoded by one core, in wall-clock time."""
    open: float
    """Opening a clip, divided by the pairs drawn from it."""
    seek: float
    """Seeking; for a store, fetching the bytes."""
    decode: float
    """Decoding to RGB frames."""
    transfer: float
    """Cutting regions, stacking them to a batch and moving it to the device."""
    views: float
    """Sampling and rendering the views on the device."""
    plain_views: float | None
    """Rendering the views by per-image code with Pillow on one core; only measured on a CPU."""
    clip_frames_per_second: float | None
    """Frames in clips of more than two frames that one core reads; None if not measured."""
    keyframes: KeyframeRates | None = None
    """Rates of pairs at keyframes; None if not measured, or if the layout is no video."""

    @property
    def limit(self) -> str:
        """Name of the slowest stage."""
        return max(STAGES, key=lambda stage: getattr(self, stage))


@dataclass(frozen=True, kw_only=True)
class DataBenchmark:
    """Configuration of the data benchmark."""

    sampling: Sampling
    """Pairs of frames."""
    clips: Sampling | None
    """Clips of more frames, whose reading rate is measured too; None for pairs only."""
    at_keyframes: bool
    """If True, pairs at keyframes are measured too."""
    short_sides: tuple[int, ...]
    """Shorter sides of the measured stores, in pixels."""
    store: StoreConfig
    device: torch.device
    """Device that renders the views."""
    batch_size: int
    """Pairs rendered at once."""
    announce: Callable[[str], None]
    """Called with a description of the next measurement."""

    def run(self, root: str | None) -> list[LayoutTimes]:
        """Measure the layouts of a folder, or of generated videos if `root` is None.

        Raises:
            MidwayError: Nothing below `root` can be read, or an extra is not installed.
        """
        keep_some_freed_memory()  # as the workers of a training do
        if root is not None:
            return self._layouts(root, DIRECT, self.short_sides)
        times = []
        with tempfile.TemporaryDirectory() as folder:
            for gop in MADE_GOPS:
                made = Path(folder, str(gop))
                made.mkdir()
                self.announce(f"generating 720p videos with a keyframe every {gop} frames")
                for seed in progress(range(MADE_CLIPS), "videos"):
                    make_clip(made / f"{seed}.mp4", gop=gop, seed=seed)
                # A store does not depend on the source's keyframes.
                sides = self.short_sides if gop == MADE_GOPS[0] else ()
                times += self._layouts(str(made), f"H.264, GOP {gop}", sides)
        return times

    def _layouts(self, root: str, name: str, short_sides: Sequence[int]) -> list[LayoutTimes]:
        found = find_sources(root, source_fps=self.store.source_fps)
        sample = readable_sample(root, found, self.sampling)
        self.announce(f"reading {root}")
        native = max(side for _, _, side in sample)
        times = [self._measure(name, native, [clip for _, clip, _ in sample])]
        for side in sorted({min(side, native) for side in short_sides}):
            self.announce(f"making and reading a store of short side {side}")
            with tempfile.TemporaryDirectory() as folder:
                store = str(Path(folder, "trial.lance"))
                config = replace(self.store, short_side=side)
                sources = [each.source for each, _, _ in sample]
                make_trial_store(store, sources, config, self.sampling.clip_seconds)
                times.append(self._measure(f"store at {side}", side, read_store(store)))
        return times

    def _measure(self, name: str, short_side: int, clips: Sequence[Clip]) -> LayoutTimes:
        rate = samples_per_second(clips, self.sampling)
        longer = self.clips and samples_per_second(clips, self.clips) * self.clips.num_frames
        open_ms, seek_ms = _open_and_seek(clips, self.sampling)
        views = self._views(list(islice(_frame_pairs(clips, self.sampling), self.batch_size)))
        return LayoutTimes(
            layout=name,
            short_side=short_side,
            pairs_per_second=rate,
            open=open_ms,
            seek=seek_ms,
            decode=max(0.0, 1e3 / rate - open_ms - seek_ms),
            transfer=views[0],
            views=views[1],
            plain_views=views[2],
            clip_frames_per_second=longer,
            keyframes=_keyframe_rates(clips, self.sampling) if self.at_keyframes else None,
        )

    def _views(self, pairs: list[FramePair]) -> tuple[float, float, float | None]:
        """Measure transfer, views and plain views in milliseconds per pair."""
        if self.device.type == "cpu":
            times = time_views(pairs, batch_size=self.batch_size)
            return times.cut_ms + times.stack_ms, times.draw_ms + times.render_ms, times.plain_ms
        return *time_device_views(pairs, self.device, self.batch_size), None


def _keyframe_rates(clips: Sequence[Clip], sampling: Sampling) -> KeyframeRates | None:
    if not all(isinstance(clip, VideoClip) for clip in clips):
        return None
    kinds = {
        "random": sampling,
        "starts": replace(sampling, starts="keyframes"),
        "both": replace(sampling, starts="keyframes", targets="keyframes"),
    }
    # In turns, as the speed of a machine changes.
    rounds = [
        {name: samples_per_second(clips, kind, time.process_time) for name, kind in kinds.items()}
        for _ in range(_ROUNDS)
    ]
    return KeyframeRates(**{name: median(rates[name] for rates in rounds) for name in kinds})


def _frame_pairs(clips: Sequence[Clip], sampling: Sampling) -> Iterator[FramePair]:
    rng = np.random.default_rng(sampling.seed)
    for clip in cycle(clips):
        with clip.open() as reader:
            times = draw_times(float(clip.frame_seconds[-1]), sampling, rng)
            frames = [frame.image for frame in reader.frames_at(times)]
        yield from zip(frames[::2], frames[1::2], strict=True)


def _open_and_seek(clips: Sequence[Clip], sampling: Sampling) -> tuple[float, float]:
    """Measure opening a clip and seeking to its pairs, in milliseconds per pair."""
    rng = np.random.default_rng(sampling.seed)
    open_seconds = seek_seconds = 0.0
    pairs = 0
    for clip in islice(cycle(clips), max(len(clips), _SEEK_PAIRS // sampling.draws_per_clip)):
        times = draw_times(float(clip.frame_seconds[-1]), sampling, rng)
        start = time.perf_counter()
        if isinstance(clip, VideoClip):
            VideoFile(clip.location).close()
        open_seconds += time.perf_counter() - start
        with _seeker(clip) as seek:
            start = time.perf_counter()
            seek(times)
            seek_seconds += time.perf_counter() - start
        pairs += sampling.draws_per_clip
    return 1e3 * open_seconds / pairs, 1e3 * seek_seconds / pairs


@contextmanager
def _seeker(clip: Clip) -> Iterator[Callable[[list[float]], object]]:
    """Yield a function that seeks to some times of a clip without decoding."""
    if isinstance(clip, VideoClip):
        with bad_clip_errors(clip.location), closing(open_stream(clip.location)) as opened:
            yield partial(_seek_video, opened)
    elif isinstance(clip, StoreClip):
        dataset, _ = open_store(clip.location)
        dataset.take([clip.first_row], columns=["jpeg"])  # loads the metadata that Lance caches
        yield partial(_fetch_rows, dataset, clip)
    else:
        yield lambda times: None


def _seek_video(opened: OpenStream, times: list[float]) -> None:
    for seconds in times[::2]:
        opened.container.seek(int(seconds / opened.tick_seconds), stream=opened.stream)
        next(opened.packets())


def _fetch_rows(dataset: Any, clip: StoreClip, times: list[float]) -> None:
    places = np.searchsorted(clip.frame_seconds, times, side="right") - 1
    dataset.take((clip.first_row + np.unique(places)).tolist(), columns=["jpeg"])
