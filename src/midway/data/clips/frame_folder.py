"""Folders of frames, as sequences with a time for every frame.

The last run of digits in a file name counts the frames; what stands around it tells the
sequences of one folder apart (``0001TP_006690.png``, ``0016E5_04350.png``).
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from midway.data.clip import ROUNDING_SECONDS, BadClipError, Frame
from midway.data.files import FoundFile, open_binary
from midway.data.signals import SUFFIX

IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".ppm", ".webp", ".bmp"])

_EIGHT_BIT_MODES = frozenset(
    ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\D*)")


@dataclass(frozen=True, eq=False)
class FrameSequence:
    """Images of one scene in order of time; a clip that is always open."""

    name: str
    frames: tuple[str, ...]
    """Path or URL of each frame."""
    frame_seconds: NDArray[np.float64]
    """Time of every frame after the first, increasing."""
    fps: float
    """Rate at which the frame numbers count."""

    @property
    def location(self) -> str:
        """The folder that holds the frames."""
        return self.frames[0].rpartition("/")[0]

    @property
    def signals_location(self) -> str:
        """In the same folder, named by what is common to the names of the frames."""
        pattern = PurePosixPath(self.name)
        # Without a count in the names, that of the sequence is the folder's.
        stem = pattern.stem.replace("*", "") if "*" in pattern.name else ""
        return f"{self.location}/{stem}{SUFFIX}" if stem else f"{self.location}/{SUFFIX[1:]}"

    def open(self) -> AbstractContextManager["FrameSequence"]:
        """The sequence itself: there is nothing to open."""
        return nullcontext(self)

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """For each time the last frame at or before it; the first one for a negative time.

        Raises:
            BadClipError: A frame cannot be read.
        """
        asked = np.asarray(seconds) + ROUNDING_SECONDS
        following = np.searchsorted(self.frame_seconds, asked, side="right")
        places = np.maximum(following - 1, 0).tolist()
        images = {place: read_image(self.frames[place]) for place in set(places)}
        return [Frame(images[place], float(self.frame_seconds[place])) for place in places]


def group_sequences(files: Iterable[FoundFile], *, fps: float) -> list[FrameSequence]:
    """Sort the images among some files into sequences, by folder and by name around the number.

    Images without a number are one sequence a folder, in natural order, one frame a count.

    Args:
        files: Of any kind.
        fps: Rate at which frame numbers count: files numbered 0, 30, 60 at 30 are 1 s apart.
    """
    groups: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for file in sorted(files, key=lambda file: natural_key(file.name)):
        path = PurePosixPath(file.name)
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        match = _NUMBERED.fullmatch(path.stem)
        pattern = f"{match['before']}*{match['after']}{path.suffix}" if match else ""
        group = groups[(path.parent / pattern).as_posix()]
        group.append((int(match["number"]) if match else len(group), file.location))
    sequences = []
    for name, frames in groups.items():
        frames.sort(key=lambda frame: frame[0])
        # Whole numbers of Python: time stamps in names can be longer than 64 bits.
        counts = [number - frames[0][0] for number, _ in frames]
        sequences.append(
            FrameSequence(
                name=name,
                frames=tuple(location for _, location in frames),
                frame_seconds=np.array(counts, dtype=np.float64) / fps,
                fps=fps,
            )
        )
    return sequences


def read_image(location: str) -> NDArray[np.uint8]:
    """An 8-bit image as RGB (height, width, 3), upright; grey is repeated, alpha dropped.

    Raises:
        BadClipError: The file is no image, is cut short, or holds more than 8 bits a channel.
    """
    try:
        with open_binary(location) as data, Image.open(data) as file:
            deep = any(";16" in str(tile[3]) for tile in file.tile)
            if deep or file.mode not in _EIGHT_BIT_MODES:
                raise BadClipError(
                    location, "has more than 8 bits a channel", "convert it to 8 bits or remove it"
                )
            image = ImageOps.exif_transpose(file)
            if "transparency" in image.info:
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadClipError(
            location, f"cannot be read as an image ({error})", "copy it again or remove it"
        ) from error


def natural_key(name: str) -> tuple[str | int, ...]:
    """Sort key that puts ``frame9`` before ``frame10``."""
    return tuple(
        int(part) if place % 2 else part.lower()
        for place, part in enumerate(re.split(r"(\d+)", name))
    )
