"""Log of the clips that cannot be used, with a limit that stops the run."""

import json
import logging
from collections.abc import Collection
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from midway.atomic import naming
from midway.config import json_text
from midway.errors import MidwayError, counted

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SkippedClip:
    """Name of a clip that is not used, and a one-line `reason` with its path and a remedy."""

    clip: str
    reason: str
    is_temporary: bool = False
    """True for a failure of the network, which says nothing about the clip."""


class SkipLog:
    """Set of the clips skipped so far.

    Args:
        total: Number of all clips, good and bad.
        max_share: Largest share of bad clips that is allowed, from 0 to 1.
        folder: Folder of `skipped.jsonl`, one ``{"clip", "reason"}`` per line. Clips that an
            earlier run or another process has listed are not repeated. None writes no file.
    """

    def __init__(self, *, total: int, max_share: float, folder: Path | None) -> None:
        self._total = total
        self._max_share = max_share
        self._path = None if folder is None else folder / "skipped.jsonl"
        self._clips: dict[str, SkippedClip] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, skipped: Collection[SkippedClip], *, write: bool) -> None:
        """Count clips that are not in the log yet, and append them to the file.

        Args:
            skipped: Skipped clips, new or known.
            write: If False, do not write the file, because another process writes the same clips.

        Raises:
            MidwayError: More than `max_share` of all clips are bad.
        """
        bad = [clip for clip in skipped if not clip.is_temporary]
        for clip in skipped:
            if clip.is_temporary:
                _log.warning("%s; another clip replaced it this time", clip.reason)
        new = {clip.clip: clip for clip in bad if clip.clip not in self._clips}
        self._clips |= new
        if new and write and self._path:
            _list(new, self._path)
        if len(self) > self._max_share * self._total:
            first = next(iter(self._clips.values()))
            listed = f"; {self._path} lists all" if self._path and len(self) > 1 else ""
            raise MidwayError(
                f"{len(self)} of {counted(self._total, 'clip')} ({len(self) / self._total:.1%}) "
                f"cannot be used, more than --data.max-bad-share {self._max_share:g} allows; raise "
                f"it to go on without them; the first: {first.reason}{listed}"
            )


def _list(clips: dict[str, SkippedClip], path: Path) -> None:
    listed = _listed_clips(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with naming(path), path.open("a", encoding="utf-8") as file:
        for name, clip in clips.items():
            if name not in listed:
                file.write(json_text({"clip": name, "reason": clip.reason}) + "\n")


def _listed_clips(path: Path) -> set[str]:
    clips: set[str] = set()
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            # A killed run may leave half a line; other invalid lines are ignored too.
            with suppress(ValueError, TypeError, KeyError):
                clips.add(json.loads(line)["clip"])
    return clips
