"""Pairs of frames of one clip, a set time apart.

A sample is a pure function of (seed, epoch, index): no other state reaches the random numbers,
so the number of workers and processes changes nothing.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import BadClipError, Clip, Frame
from midway.data.clips import ClipList
from midway.data.gaps import partners, start_frames
from midway.data.skipped import SkippedClip
from midway.data.views import ViewParameters, ViewsConfig, cut_windows, draw_views
from midway.data.workers import Reading
from midway.errors import MidwayError

_MAX_ATTEMPTS = 10


@dataclass(frozen=True, kw_only=True)
class PairsConfig:
    """Which pairs are drawn from a folder of clips, and how they are batched."""

    root: str = "data"
    """Folder of videos or of frames, searched with all below it; or one video; path or URL."""
    fps: float = 30.0
    """Rate at which the numbers of frame files count; videos know their own."""
    gap_seconds: tuple[float, float] = (0.5, 1.0)
    """Smallest and largest time from source to target."""
    starts: Literal["random", "every_frame"] = "random"
    """One random source a clip and epoch, or every frame that has a target once an epoch."""
    cut_blank_tail: bool = False
    """Whether to look at the end of every video, and leave out a blank stretch there."""
    draws_per_clip: int = 1
    """Pairs drawn each time a clip is opened: a pass over the clips is as many epochs."""
    batch_size: int = 200
    """Pairs of one batch over all processes; an optimiser step takes `run.accumulate` batches."""
    num_workers: int = 8
    """Reading processes for each training process; 0 reads in the training process."""
    read_timeout_seconds: float = 60.0
    """How long a reading process may take for the pairs of a clip before the clip is given up."""
    max_bad_share: float = 0.01
    """Share of the clips that may turn out unusable before the run stops."""

    def __post_init__(self) -> None:
        smallest, largest = self.gap_seconds
        draws, batch = self.draws_per_clip, self.batch_size
        rules = {
            f"gap_seconds = {self.gap_seconds}; give 0 < smallest <= largest": (
                0 < smallest <= largest < math.inf
            ),
            f"fps = {self.fps}; give a rate above 0": 0 < self.fps < math.inf,
            f"draws_per_clip = {draws}; give at least 1": draws >= 1,
            f"draws_per_clip = {draws} with starts = every_frame; give 1": (
                draws == 1 or self.starts == "random"
            ),
            f"batch_size = {batch} with draws_per_clip = {draws}; give a multiple of it": (
                batch >= 1 and draws >= 1 and batch % draws == 0
            ),
            f"num_workers = {self.num_workers}; give 0 or more": self.num_workers >= 0,
            f"read_timeout_seconds = {self.read_timeout_seconds}; give a time above 0": (
                0 < self.read_timeout_seconds < math.inf
            ),
            f"max_bad_share = {self.max_bad_share}; give a share from 0 to 1": (
                0 <= self.max_bad_share <= 1
            ),
        }
        for rule, holds in rules.items():
            if not holds:
                raise MidwayError(f"data.{rule}")


@dataclass(frozen=True, kw_only=True)
class PairSample:
    """One pair, cut to what its views are made of, and where it comes from."""

    windows: tuple[NDArray[np.uint8], NDArray[np.uint8]]
    """Parts of both frames, RGB, each (2, height, width, 3): source, then target."""
    views: ViewParameters
    """What is random about its views."""
    clip: str
    source_seconds: float
    target_seconds: float
    index: int
    """Place in the epoch that was asked for."""
    skipped: tuple[SkippedClip, ...]
    """Clips that could not be read on the way to this pair."""


class PairDataset:
    """Pairs by (epoch, index); an item holds `draws_per_clip` pairs of one clip in order of time.

    A clip that fails while it is read gives way to another one, drawn from the same three
    numbers; the failure rides along in `PairSample.skipped`.

    Args:
        found: The clips.
        config: Which pairs.
        views: Which views are made of them.
        seed: Seed of everything drawn here, 0 or more.
    """

    def __init__(
        self, found: ClipList, config: PairsConfig, views: ViewsConfig, *, seed: int
    ) -> None:
        self.found = found
        self.config = config
        self.views = views
        self.seed = seed
        if config.starts == "every_frame":
            starts = [start_frames(clip, config.gap_seconds).size for clip in found.clips]
        else:
            starts = [1] * len(found.clips)
        self._ends = np.cumsum(starts)

    def __len__(self) -> int:
        """Items of one pass: clips, or with `every_frame` starts."""
        return int(self._ends[-1])

    def read_all(self, keys: list[tuple[int, int]], reading: Reading) -> list[PairSample]:
        """The pairs of several items, one after the other; see `read`."""
        return [sample for key in keys for sample in self.read(*key, reading)]

    def read(self, epoch: int, index: int, reading: Reading) -> list[PairSample]:
        """The pairs of (epoch, index).

        Args:
            epoch: Pass over the items, from 0.
            index: Item of the pass.
            reading: Is told which clip is read, and knows those that must not be.

        Raises:
            MidwayError: Ten clips in a row could not be read.
        """
        clips = self.found.clips
        skipped: list[SkippedClip] = []
        for attempt in range(min(_MAX_ATTEMPTS, len(clips))):
            rng = np.random.default_rng([self.seed, epoch, index, attempt, 0])
            if attempt == 0:
                place = int(np.searchsorted(self._ends, index, side="right"))
            else:
                failed = {clip.clip for clip in skipped}
                others = [i for i, clip in enumerate(clips) if clip.name not in failed]
                place = int(rng.choice(others))
            clip = clips[place]
            times, starts = _timeline(clip, self.config.gap_seconds)
            if attempt == 0 and self.config.starts == "every_frame":
                chosen = starts[[index - self._ends[place]]]
            else:
                chosen = rng.choice(starts, self.config.draws_per_clip)
            asked = [self._pair_seconds(clip.fps, times, start, rng) for start in np.sort(chosen)]
            try:
                pairs = _read_pairs(clip, asked, reading)
            except (BadClipError, OSError) as error:
                skipped.append(SkippedClip(clip.name, str(error)))
                continue
            return self._samples(pairs, clip.name, epoch, index, tuple(skipped))
        raise MidwayError(
            f"{len(skipped)} clips in a row could not be read; the last: {skipped[-1].reason}"
        )

    def _pair_seconds(
        self, fps: float, times: NDArray[np.float64], start: int, rng: np.random.Generator
    ) -> tuple[float, float]:
        smallest, largest = self.config.gap_seconds
        source = float(times[start])
        # At the end of a clip only the shorter gaps are left to choose from.
        gap = rng.uniform(smallest, max(smallest, min(largest, float(times[-1]) - source)))
        first, end = partners(times, source, gap_seconds=self.config.gap_seconds, fps=fps)
        candidates = times[int(first) : int(end)]
        return source, float(candidates[np.argmin(np.abs(candidates - source - gap))])

    def _samples(
        self,
        pairs: list[tuple[Frame, Frame]],
        clip: str,
        epoch: int,
        index: int,
        skipped: tuple[SkippedClip, ...],
    ) -> list[PairSample]:
        rng = np.random.default_rng([self.seed, epoch, index, 0, 1])
        samples = []
        for source, target in pairs:
            height, width, _ = source.image.shape
            views = draw_views(self.views, height, width, rng)
            sample = PairSample(
                windows=cut_windows(views, source.image, target.image),
                views=views,
                clip=clip,
                source_seconds=source.seconds,
                target_seconds=target.seconds,
                index=index,
                skipped=skipped,
            )
            samples.append(sample)
        return samples


@lru_cache(maxsize=16)
def _timeline(
    clip: Clip, gap_seconds: tuple[float, float]
) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Times of the frames of a clip, and which are starts: hours of video have half a million."""
    return clip.frame_seconds, start_frames(clip, gap_seconds)


def _read_pairs(
    clip: Clip, times: list[tuple[float, float]], reading: Reading
) -> list[tuple[Frame, Frame]]:
    if clip.name in reading.lost:
        raise BadClipError(clip.location, reading.lost[clip.name], "re-encode it or remove it")
    reading(clip.name)
    # Half a frame later than the start of a frame, no rounding of its time can give the one before.
    half_frame_seconds = 0.5 / clip.fps
    asked = [seconds + half_frame_seconds for pair in times for seconds in pair]
    with clip.open() as reader:
        frames = reader.frames_at(asked)
    pairs = list(zip(frames[::2], frames[1::2], strict=True))
    for source, target in pairs:
        if source.image.shape != target.image.shape:
            raise BadClipError(
                clip.location,
                f"changes its frame size between {source.seconds:.2f} and {target.seconds:.2f} s",
                "re-encode it to one size or remove it",
            )
    return pairs
