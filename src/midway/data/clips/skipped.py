"""Clips that cannot be used: counted, listed in a file, and too many of them stop the run."""

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from midway.errors import MidwayError


@dataclass(frozen=True)
class SkippedClip:
    """A clip left out: its name, and the one-line `reason` with path and remedy."""

    clip: str
    reason: str


class SkipLog:
    """Distinct clips skipped so far.

    Args:
        total: How many clips there are, good and bad.
        max_share: Share of them that may be bad.
        folder: Where to keep `skipped.jsonl`, one ``{"clip", "reason"}`` a line; what it lists
            from before, or from another process, is not listed twice. None writes nothing.
    """

    def __init__(self, *, total: int, max_share: float, folder: Path | None) -> None:
        self._total = total
        self._max_share = max_share
        self._path = None if folder is None else folder / "skipped.jsonl"
        self._clips: dict[str, SkippedClip] = {}

    def __len__(self) -> int:
        return len(self._clips)

    def add(self, skipped: Iterable[SkippedClip], *, write: bool) -> None:
        """Count the clips not met before, and list them.

        Args:
            skipped: New or known ones.
            write: False where another process lists the same ones.

        Raises:
            MidwayError: More than the allowed share of all clips is bad.
        """
        new = {clip.clip: clip for clip in skipped if clip.clip not in self._clips}
        self._clips |= new
        if new and write and self._path:
            _list(new, self._path)
        if len(self) > self._max_share * self._total:
            first = next(iter(self._clips.values()))
            listed = f"; {self._path} lists all" if self._path and len(self) > 1 else ""
            raise MidwayError(
                f"{len(self)} of {self._total} clips ({len(self) / self._total:.1%}) cannot be "
                f"used, more than data.max_bad_share = {self._max_share:g} allows; the first: "
                f"{first.reason}{listed}"
            )


def _list(clips: dict[str, SkippedClip], path: Path) -> None:
    listed = _listed_clips(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        for name, clip in clips.items():
            if name not in listed:
                file.write(json.dumps(asdict(clip)) + "\n")


def _listed_clips(path: Path) -> set[str]:
    clips: set[str] = set()
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            # Half a line of a run that was killed, or what is no record at all.
            with suppress(ValueError, TypeError, KeyError):
                clips.add(json.loads(line)["clip"])
    return clips
