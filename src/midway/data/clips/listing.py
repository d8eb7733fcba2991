"""Kinds of the files below a root: videos, images, covers of videos, and files not read."""

import logging
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import PurePosixPath

from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.clips.index import INDEX_NAME, is_video
from midway.data.files import FoundFile
from midway.data.signals import SUFFIX
from midway.errors import counted

_MOST_SUFFIXES = 6
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Listing:
    """Files below a root by kind."""

    videos: list[FoundFile]
    images: list[FoundFile]
    """Images that may be frames."""
    num_covers: int
    """Number of images that have the name of a video beside them."""
    others: Counter[str]
    """Number of other files by suffix, without indexes and signals."""

    @property
    def passed_over(self) -> str:
        """Phrase that counts the files that are not read; empty if there are none."""
        common = self.others.most_common(_MOST_SUFFIXES)
        parts = [f"{count} {suffix or 'without suffix'}" for suffix, count in common]
        rest = self.others.total() - sum(count for _, count in common)
        parts += [f"{rest} of other kinds"] if rest else []
        if self.num_covers:
            parts.append(f"{counted(self.num_covers, 'image')} with the name of a video")
        return ", ".join(parts)


def tell_passed_over(root: str, listing: Listing) -> None:
    """Log one line that counts the files below a root that are not read."""
    if listing.passed_over:
        _log.warning("%s: not read as clips: %s", root, listing.passed_over)


def list_kinds(files: Iterable[FoundFile]) -> Listing:
    """Sort files by kind; an image with the path of a video but another suffix is its cover."""
    videos: list[FoundFile] = []
    images: list[FoundFile] = []
    others: Counter[str] = Counter()
    for file in files:
        suffix = PurePosixPath(file.name).suffix.lower()
        if is_video(file):
            videos.append(file)
        elif suffix in IMAGE_SUFFIXES:
            images.append(file)
        elif not file.name.endswith((INDEX_NAME, SUFFIX, SUFFIX[1:])):
            others[suffix] += 1
    stems = {_without_suffix(video) for video in videos}
    frames = [image for image in images if _without_suffix(image) not in stems]
    return Listing(videos, frames, len(images) - len(frames), others)


def _without_suffix(file: FoundFile) -> str:
    return str(PurePosixPath(file.name).with_suffix(""))
