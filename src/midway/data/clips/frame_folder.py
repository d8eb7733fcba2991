"""Folders of image files as frame sequences, and the reading of images.

The last run of digits that varies in a file name is the frame number. The rest of the name
distinguishes the sequences of one folder (``0001TP_006690.png``, ``0016E5_04350.png``).
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from fractions import Fraction
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray

from midway.data.clip import Frame, SignalSource, frames_shown_at
from midway.data.clips.frame_numbers import Number, natural_key, number_frames
from midway.data.file_part import member_of
from midway.data.files import FoundFile
from midway.data.images import read_image
from midway.data.signals import SUFFIX

IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".ppm", ".webp", ".bmp"])


@dataclass(frozen=True, eq=False)
class FrameSequence:
    """Clip of image files in order of time."""

    name: str
    frames: tuple[str, ...]
    """Path or URL of each frame."""
    frame_seconds: NDArray[np.float64]
    """Times (frames,) after the first frame, increasing."""
    fps: float
    """Frames per second that the frame numbers count."""

    @property
    def location(self) -> str:
        """Folder of the frames, or the tar file that contains them."""
        member = member_of(self.frames[0])
        return self.frames[0].rpartition("/")[0] if member is None else member.archive

    @property
    def signals(self) -> SignalSource | None:
        """Place of the signals: in the folder, named by their common part; None in a tar file."""
        if member_of(self.frames[0]) is not None:
            return None
        pattern = PurePosixPath(self.name)
        # Without frame numbers, the sequence has the name of the folder.
        stem = pattern.stem.replace("*", "") if "*" in pattern.name else ""
        return SignalSource(f"{self.location}/{f'{stem}{SUFFIX}' if stem else SUFFIX[1:]}")

    def open(self) -> AbstractContextManager["FrameSequence"]:
        """Return the sequence itself, as there is nothing to open."""
        return nullcontext(self)

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """Return for each time the last frame at or before it.

        Args:
            seconds: Times after the first frame, in any order; a negative time selects the first.

        Raises:
            BadClipError: A frame cannot be read.
        """
        places = frames_shown_at(self.frame_seconds, seconds)
        images = {place: read_image(self.frames[place]) for place in set(places)}
        return [Frame(images[place], float(self.frame_seconds[place])) for place in places]

    def keyframe_at(self, seconds: float) -> float:
        """Return the time of the frame at a time, as every image is a keyframe."""
        return float(self.frame_seconds[frames_shown_at(self.frame_seconds, [seconds])[0]])


def group_sequences(files: Iterable[FoundFile], *, fps: float) -> list[FrameSequence]:
    """Group image files into sequences by folder and by the name around the frame number.

    See `number_frames` for the frame numbers. Decimal numbers are seconds (``1305031102.17.png``).
    Images without a number form one sequence per folder, numbered in natural order of name.

    Args:
        files: Files of any kind; only images are used.
        fps: Frames per second that frame numbers count: with 30, the files 0, 30 and 60 are 1 s
            apart.
    """
    images = [
        file
        for file in sorted(files, key=lambda file: natural_key(file.name))
        if PurePosixPath(file.name).suffix.lower() in IMAGE_SUFFIXES
    ]
    groups: defaultdict[str, list[tuple[Number, str]]] = defaultdict(list)
    numbered = number_frames([file.name for file in images])
    for file, (pattern, number) in zip(images, numbered, strict=True):
        group = groups[pattern]
        group.append((len(group) if number is None else number, file.location))
    return [_sequence(name, frames, fps) for name, frames in groups.items()]


def _sequence(name: str, frames: list[tuple[Number, str]], fps: float) -> FrameSequence:
    frames.sort(key=lambda frame: frame[0])
    # Exact numbers, because time stamps in file names can exceed 64 bits.
    counts = np.array([float(number - frames[0][0]) for number, _ in frames])
    if isinstance(frames[0][0], Fraction):
        steps = np.diff(counts)
        fps = float(1 / np.median(steps[steps > 0])) if counts[-1] > 0 else fps
        seconds = counts
    else:
        seconds = counts / fps
    return FrameSequence(name, tuple(location for _, location in frames), seconds, fps)
