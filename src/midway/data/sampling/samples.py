"""Dataset of samples: a few frames of one clip at given time gaps, cut to the regions of the views.

A sample is a pure function of (seed, epoch, index), so it does not depend on the number of workers
and processes.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from midway.config import MAX_BATCH, MAX_WORKERS, require
from midway.data.clip import BadClipError, Clip, ClipReader, Frame
from midway.data.clips.find import ClipList, find_clips
from midway.data.clips.roots import Selection
from midway.data.clips.skipped import SkippedClip
from midway.data.clips.timing import Gap, follows, start_frames
from midway.data.remote import UnavailableError
from midway.data.sampling.keyframes import Starts, Targets, frame_times
from midway.data.sampling.timeline import timeline_of
from midway.data.signals import read_signals
from midway.data.views.spec import ClipSpec, ViewParameters, cut_regions, draw_views
from midway.data.workers.pool import Reading
from midway.errors import MidwayError, counted

SECONDS_OF_A_DAY = 86_400
_MAX_ATTEMPTS = 10
"""Clips tried for one item before the run stops."""


@dataclass(frozen=True, kw_only=True)
class ClipsConfig:
    """Options of the dataset of clips and of its batches."""

    root: str = "data"
    """Folder of videos or of frames, searched recursively, or one video, a list of videos, a tar
    file, an index or a frame store; path or URL."""
    include: tuple[str, ...] = ()
    """Patterns of the names of files to read, such as `*/front/*`; all files if empty."""
    exclude: tuple[str, ...] = ()
    """Patterns of the names of files not to read."""
    camera: str = ""
    """Camera of LeRobot datasets, such as `observation.images.top` or `top`; all if empty."""
    fps: float = 30.0
    """Frame rate of folders of frames; videos contain their own."""
    gap_seconds: Gap = (0.5, 1.0)
    """Smallest and largest time between neighbouring frames; one gap is drawn per sample. 0 and 0
    give samples of one repeated frame, a control without motion."""
    starts: Starts = "random"
    """First frames of the samples: a random one per clip and epoch, every possible one once per
    epoch, or a random keyframe, which costs less to decode."""
    targets: Targets = "any"
    """Later frames of the samples: those nearest to the drawn gap, or keyframes near them where the
    allowed gaps contain one."""
    cut_blank_tail: bool = False
    """If True, decode the end of every video, and exclude blank frames there."""
    draws_per_clip: int = 1
    """Samples per opened clip; one pass over the clips counts as that many epochs."""
    batch_size: int = 200
    """Samples per batch over all processes; an optimiser step takes `run.accumulate` batches."""
    num_workers: int = 8
    """Worker processes per training process; 0 reads in the training process."""
    read_timeout_seconds: float = 60.0
    """Timeout of a worker for the samples of one clip, after which the clip is skipped."""
    max_bad_share: float = 0.01
    """Maximum fraction of unusable clips; above it the run stops."""

    def __post_init__(self) -> None:
        smallest, largest = self.gap_seconds
        draws, batch = self.draws_per_clip, self.batch_size
        rules = {
            f"gap_seconds = {self.gap_seconds}; give 0 < smallest <= largest, or 0 and 0": (
                0 < smallest <= largest < math.inf or smallest == largest == 0
            ),
            f"fps = {self.fps}; give a rate above 0": 0 < self.fps < math.inf,
            f"draws_per_clip = {draws}; give at least 1": draws >= 1,
            f"draws_per_clip = {draws} with starts = every_frame; give 1": (
                draws == 1 or self.starts != "every_frame"
            ),
            f"batch_size = {batch} with draws_per_clip = {draws}; give a multiple of it": (
                batch >= 1 and draws >= 1 and batch % draws == 0
            ),
            f"num_workers = {self.num_workers}; give 0 or more": self.num_workers >= 0,
            f"num_workers = {self.num_workers}; give {MAX_WORKERS} or less": (
                self.num_workers <= MAX_WORKERS
            ),
            f"batch_size = {batch}; give {MAX_BATCH} or less": batch <= MAX_BATCH,
            "root is empty; give a folder, a file or a URL": self.root.strip() != ""
            and "\0" not in self.root,
            f"read_timeout_seconds = {self.read_timeout_seconds}; give a time above 0": (
                0 < self.read_timeout_seconds < math.inf
            ),
            f"read_timeout_seconds = {self.read_timeout_seconds}; give a day (86400) or less": (
                self.read_timeout_seconds <= SECONDS_OF_A_DAY
            ),
            f"max_bad_share = {self.max_bad_share}; give a share from 0 to 1": (
                0 <= self.max_bad_share <= 1
            ),
        }
        require("data", rules)

    @property
    def selection(self) -> Selection:
        """Choice of the files below the root."""
        return Selection(include=self.include, exclude=self.exclude, camera=self.camera)

    def find(self, num_frames: int) -> ClipList:
        """List the clips that contain a sample of so many frames, see `find_clips`."""
        return find_clips(
            self.root,
            fps=self.fps,
            gap_seconds=self.gap_seconds,
            num_frames=num_frames,
            cut_blank_tail=self.cut_blank_tail,
            selection=self.selection,
            num_workers=self.num_workers,
            timeout_seconds=self.read_timeout_seconds,
        )


@dataclass(frozen=True, kw_only=True)
class Sample:
    """Frames of one clip, cut to the regions of the views, and their origin."""

    regions: dict[str, NDArray[np.uint8]]
    """Windows of all frames by name of the region, RGB, shape (frames, height, width, 3)."""
    views: ViewParameters
    """Random parameters of the views."""
    signals: dict[str, NDArray[np.float32]]
    """Recorded signals at the frames, shape (frames, ...)."""
    clip: str
    """Name of the clip."""
    seconds: tuple[float, ...]
    """Time of each frame after the first frame of the clip."""
    index: int
    """Requested item of the epoch."""
    skipped: tuple[SkippedClip, ...]
    """Clips that failed while this sample was read; this clip replaces them."""


class ClipDataset:
    """Dataset of samples; item (epoch, index) is `draws_per_clip` samples of a clip in time order.

    If a clip cannot be read, another one replaces it, drawn from (seed, epoch, index);
    `Sample.skipped` reports the failure.

    Args:
        found: Clips of the dataset.
        config: Options of the samples.
        spec: Frames, regions, views and signals of a sample.
        seed: Seed of all random numbers, 0 or more.
    """

    def __init__(self, found: ClipList, config: ClipsConfig, spec: ClipSpec, *, seed: int) -> None:
        self.found = found
        self.config = config
        self.spec = spec
        self.seed = seed
        if config.starts == "every_frame":
            starts = [
                start_frames(clip, config.gap_seconds, spec.num_frames).size for clip in found.clips
            ]
        else:
            starts = [1] * len(found.clips)
        self._ends = np.cumsum(starts)

    def __len__(self) -> int:
        """Return the number of items of one pass: clips, or start frames with `every_frame`."""
        return int(self._ends[-1])

    def read_all(self, keys: list[tuple[int, int]], reading: Reading) -> list[Sample]:
        """Read the samples of several items; see `read`."""
        return [sample for key in keys for sample in self.read(*key, reading)]

    def read(self, epoch: int, index: int, reading: Reading) -> list[Sample]:
        """Read the samples of (epoch, index).

        Args:
            epoch: Number of the pass over the items, from 0.
            index: Item of the pass.
            reading: Reports the clip being read, and lists the clips to skip.

        Returns:
            `draws_per_clip` samples in time order.

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
            timeline = timeline_of(clip, self.config.gap_seconds, self.spec.num_frames)
            if attempt == 0 and self.config.starts == "every_frame":
                chosen = timeline.starts[[index - self._ends[place]]]
            else:
                chosen = rng.choice(timeline.starts, self.config.draws_per_clip)
            try:
                with _opened(clip, reading) as reader:
                    asked = frame_times(
                        clip, reader, timeline, chosen, rng, self.config.starts, self.config.targets
                    )
                    frames = _read_frames(clip, reader, asked, timeline.margin_seconds)
                _check_gaps(clip, frames, self.config.gap_seconds)
                return self._samples(clip, frames, epoch, index, tuple(skipped))
            except (BadClipError, OSError) as error:
                is_temporary = isinstance(error, UnavailableError)
                skipped.append(SkippedClip(clip.name, str(error), is_temporary))
        raise MidwayError(
            f"{counted(len(skipped), 'clip')} in a row could not be read; the last: "
            f"{skipped[-1].reason}"
        )

    def _samples(
        self,
        clip: Clip,
        samples: list[list[Frame]],
        epoch: int,
        index: int,
        skipped: tuple[SkippedClip, ...],
    ) -> list[Sample]:
        rng = np.random.default_rng([self.seed, epoch, index, 0, 1])
        made, wanted = [], self.spec.signals
        for frames in samples:
            height, width, _ = frames[0].image.shape
            views = draw_views(self.spec, height, width, rng)
            seconds = tuple(frame.seconds for frame in frames)
            sample = Sample(
                regions=cut_regions(self.spec, views, [frame.image for frame in frames]),
                views=views,
                signals=read_signals(clip, wanted, seconds) if wanted else {},
                clip=clip.name,
                seconds=seconds,
                index=index,
                skipped=skipped,
            )
            made.append(sample)
        return made


def _check_gaps(clip: Clip, samples: Sequence[Sequence[Frame]], gap_seconds: Gap) -> None:
    for sample in samples:
        for before, after in pairwise(sample):
            if not follows(after.seconds - before.seconds, gap_seconds, clip.fps):
                raise BadClipError(
                    clip.location,
                    f"shows frames at {before.seconds:.2f} and {after.seconds:.2f} s where its "
                    f"frame times promise {gap_seconds[0]:g} to {gap_seconds[1]:g} s between them",
                    "write its index again, re-encode it or remove it",
                )


@contextmanager
def _opened(clip: Clip, reading: Reading) -> Iterator[ClipReader]:
    """Report a clip and open it.

    Raises:
        BadClipError: The clip cannot be opened, or is quarantined.
    """
    if clip.name in reading.lost:
        raise BadClipError(clip.location, reading.lost[clip.name], "re-encode it or remove it")
    reading(clip.name)
    with clip.open() as reader:
        yield reader


def _read_frames(
    clip: Clip, reader: ClipReader, samples: Sequence[Sequence[float]], margin_seconds: float
) -> list[list[Frame]]:
    """Return the frames of several samples of an open clip, decoded in one pass."""
    # A little past the start of a frame, rounding of the time cannot select its predecessor.
    asked = [seconds + margin_seconds for sample in samples for seconds in sample]
    frames = iter(reader.frames_at(asked))
    read = [[next(frames) for _ in sample] for sample in samples]
    for first, *others in read:
        for other in others:
            if other.image.shape != first.image.shape:
                raise BadClipError(
                    clip.location,
                    f"changes its frame size between {first.seconds:.2f} and {other.seconds:.2f} s",
                    "resize it to one size or remove it",
                )
    return read
