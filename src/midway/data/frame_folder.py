"""Folders of frames, as sequences with a time for every frame.

The last run of digits in a file name counts the frames; what stands around it tells the
sequences of one folder apart (``0001TP_006690.png``, ``0016E5_04350.png``).
"""

import re
from collections import defaultdict
from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from midway.data.video import ROUNDING_SECONDS, BadClipError, Frame

IMAGE_SUFFIXES = frozenset([".png", ".jpg", ".jpeg", ".ppm", ".webp", ".bmp"])

_EIGHT_BIT_MODES = frozenset(
    ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"]
)
_NUMBERED = re.compile(r"(?P<before>.*?)(?P<number>\d+)(?P<after>\D*)")


@dataclass(frozen=True, eq=False)
class FrameSequence:
    """Images of one scene in order of time; a clip that is always open."""

    name: str
    paths: tuple[Path, ...]
    frame_seconds: NDArray[np.float64]
    """Time of every frame after the first, increasing."""
    fps: float
    """Rate at which the frame numbers count."""

    @property
    def path(self) -> Path:
        """The folder that holds the frames."""
        return self.paths[0].parent

    def open(self) -> AbstractContextManager["FrameSequence"]:
        """The sequence itself: there is nothing to open."""
        return nullcontext(self)

    def frame_at(self, seconds: float) -> Frame:
        """The last frame at or before `seconds`; the first one for a negative time.

        Raises:
            BadClipError: The frame cannot be read.
        """
        following = np.searchsorted(self.frame_seconds, seconds + ROUNDING_SECONDS, side="right")
        index = max(int(following) - 1, 0)
        return Frame(read_image(self.paths[index]), float(self.frame_seconds[index]))


def group_sequences(paths: Iterable[Path], *, root: Path, fps: float) -> list[FrameSequence]:
    """Sort images into sequences by folder and by their names around the frame number.

    Images without a number are one sequence a folder, in natural order, one frame a count.

    Args:
        paths: The images.
        root: Folder that sequences are named relative to.
        fps: Rate at which frame numbers count: files numbered 0, 30, 60 at 30 are 1 s apart.
    """
    groups: defaultdict[Path, list[tuple[int, Path]]] = defaultdict(list)
    for path in sorted(paths, key=lambda path: natural_key(path.name)):
        match = _NUMBERED.fullmatch(path.stem)
        pattern = f"{match['before']}*{match['after']}{path.suffix}" if match else ""
        group = groups[path.parent / pattern]
        group.append((int(match["number"]) if match else len(group), path))
    sequences = []
    for pattern, frames in groups.items():
        frames.sort(key=lambda frame: frame[0])
        # Whole numbers of Python: time stamps in names can be longer than 64 bits.
        counts = [number - frames[0][0] for number, _ in frames]
        sequences.append(
            FrameSequence(
                name=pattern.relative_to(root).as_posix(),
                paths=tuple(path for _, path in frames),
                frame_seconds=np.array(counts, dtype=np.float64) / fps,
                fps=fps,
            )
        )
    return sequences


def read_image(path: Path) -> NDArray[np.uint8]:
    """An 8-bit image as RGB (height, width, 3), upright; grey is repeated, alpha dropped.

    Raises:
        BadClipError: The file is no image, is cut short, or holds more than 8 bits a channel.
    """
    try:
        with Image.open(path) as file:
            deep = any(";16" in str(tile[3]) for tile in file.tile)
            if deep or file.mode not in _EIGHT_BIT_MODES:
                raise BadClipError(
                    path, "has more than 8 bits a channel", "convert it to 8 bits or remove it"
                )
            image = ImageOps.exif_transpose(file)
            if "transparency" in image.info:
                image = image.convert("RGBA")
            return np.array(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise BadClipError(
            path, f"cannot be read as an image ({error})", "copy it again or remove it"
        ) from error


def natural_key(name: str) -> tuple[str | int, ...]:
    """Sort key that puts ``frame9`` before ``frame10``."""
    return tuple(
        int(part) if place % 2 else part.lower()
        for place, part in enumerate(re.split(r"(\d+)", name))
    )
