"""The frame store: a Lance dataset with one JPEG frame per row, for random access.

Columns: `clip` (name), `seconds` after the first frame of the clip, `width` and `height` in pixels,
`jpeg`. The rows of a clip are contiguous and in order of time. The version and the settings of the
store are in the metadata of its schema.
"""

import functools
import json
import math
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from midway.config import from_json, json_text, require
from midway.data.clip import BadClipError, Frame, frames_shown_at
from midway.data.files import is_url
from midway.errors import MidwayError

if TYPE_CHECKING:
    import lance
    import pyarrow as pa

STORE_SUFFIX = ".lance"
STORE_VERSION = 1
_VERSION_KEY = "midway.store_version"
_SETTINGS_KEY = "midway.settings"
_MAX_PIXELS = 2**26
"""Largest JPEG to decode, twice an 8K frame; a damaged header could request 12 GB."""
_MAX_QUALITY = 100


class LanceError(Exception):
    """Error of Lance, reduced to one line."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Settings of a frame store."""

    fps: float = 10.0
    """Frames per second; all frames of a source with a lower rate."""
    short_side: int = 480
    """Shorter side in pixels, at least 16; smaller frames keep their size."""
    jpeg_quality: int = 90
    """JPEG quality, from 1 to 100."""
    source_fps: float = 30.0
    """Frames per second that the numbers of frame files count; videos state their own rate."""

    def __post_init__(self) -> None:
        rules = {
            f"fps = {self.fps}; give a rate above 0": 0 < self.fps < math.inf,
            f"short_side = {self.short_side}; give 16 or more": self.short_side >= 16,
            f"jpeg_quality = {self.jpeg_quality}; give 1 to {_MAX_QUALITY}": (
                1 <= self.jpeg_quality <= _MAX_QUALITY
            ),
            f"source_fps = {self.source_fps}; give a rate above 0": 0 < self.source_fps < math.inf,
        }
        require("", rules)


@dataclass(frozen=True, eq=False)
class StoreClip:
    """Clip of a frame store; each process opens the store once."""

    name: str
    location: str
    """Path or URL of the store."""
    fps: float
    """Frames per second of the store."""
    first_row: int
    """Row of the first frame; the other frames follow it."""
    frame_seconds: NDArray[np.float64]
    """Times (frames,) after the first frame, from 0 and increasing."""

    @property
    def signals(self) -> None:
        """None, as a store contains only frames."""
        return

    def open(self) -> AbstractContextManager["StoreClip"]:
        """Return the clip itself, as there is nothing to open."""
        return nullcontext(self)

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """Return for each time the last frame that starts at or before it.

        Args:
            seconds: Times after the first frame, in any order; a negative time selects the first.

        Raises:
            BadClipError: A frame is damaged, or the store was rewritten.
            MidwayError: The store no longer exists.
        """
        places = frames_shown_at(self.frame_seconds, seconds)
        needed = sorted(set(places))
        frames = dict(zip(needed, self._read(needed), strict=True))
        return [frames[place] for place in places]

    def keyframe_at(self, seconds: float) -> float:
        """Return the time of the frame at a time, as every image is a keyframe."""
        return float(self.frame_seconds[frames_shown_at(self.frame_seconds, [seconds])[0]])

    def _read(self, places: list[int]) -> list[Frame]:
        dataset = _process_dataset(self.location, os.getpid())
        rows = [self.first_row + place for place in places]
        try:
            with lance_errors():
                table = dataset.take(rows, columns=["clip", "seconds", "width", "height", "jpeg"])
        except LanceError as error:
            _process_dataset.cache_clear()
            open_store(self.location)  # raises the better error if the whole store is gone
            raise self._bad(
                places[0], f"cannot be read ({error})", "prepare the store again"
            ) from error
        return [
            self._decode(place, row) for place, row in zip(places, table.to_pylist(), strict=True)
        ]

    def _decode(self, place: int, row: dict[str, Any]) -> Frame:
        import simplejpeg

        seconds = float(self.frame_seconds[place])
        if (row["clip"], row["seconds"]) != (self.name, seconds):
            raise self._bad(place, "has moved, as the store was rewritten", "start the run again")
        size = (row["height"], row["width"])
        try:
            stated = simplejpeg.decode_jpeg_header(row["jpeg"])[:2]
            if stated != size or math.prod(size) > _MAX_PIXELS:
                raise self._bad(
                    place,
                    f"is a JPEG of {stated[1]}x{stated[0]} pixels in a row for {size[1]}x{size[0]}",
                    "prepare the store again",
                )
            return Frame(simplejpeg.decode_jpeg(row["jpeg"]), seconds)
        except ValueError as error:
            raise self._bad(
                place, f"is not a complete JPEG ({_first_line(error)})", "prepare the store again"
            ) from error

    def _bad(self, place: int, reason: str, remedy: str) -> BadClipError:
        where = f"{self.name} at {self.frame_seconds[place]:.3f} s"
        return BadClipError(self.location, f"the frame of {where} {reason}", remedy)


def is_store(location: str) -> bool:
    """Return whether a path or URL has the name or the layout of a frame store."""
    path = location.rstrip("/")
    return path.endswith(STORE_SUFFIX) or (not is_url(path) and (Path(path) / "_versions").is_dir())


def read_store(location: str, announce: Callable[[], None] = lambda: None) -> list[StoreClip]:
    """Return the clips of a store in the order they were written; no image is read.

    Args:
        location: Path or URL of the store.
        announce: Called after each batch of rows.

    Raises:
        MidwayError: The location is not a store of this version, or contains a clip twice.
    """
    import pyarrow.compute as pc

    dataset, config = open_store(location)
    names: list[str] = []
    starts: list[int] = []
    times: list[NDArray[np.float64]] = []
    first_row = 0
    for batch in _batches(dataset, location):
        runs: pa.RunEndEncodedArray = pc.call_function("run_end_encode", [batch.column("clip")])
        ends = runs.run_ends.to_pylist()
        for name, start in zip(runs.values.to_pylist(), [0, *ends], strict=False):
            # A batch may begin within a clip.
            if not names or name != names[-1]:
                names.append(name)
                starts.append(first_row + start)
        times.append(batch.column("seconds").to_numpy())
        first_row += len(batch)
        announce()
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise MidwayError(
            f"{location}: contains {twice} twice, as two processes wrote to it; prepare it again"
        )
    parts = np.split(np.concatenate([*times, np.empty(0)]), starts[1:])
    return [
        StoreClip(name, location, config.fps, start, seconds)
        for name, start, seconds in zip(names, starts, parts, strict=False)
    ]


def store_schema(config: StoreConfig) -> "pa.Schema":
    """Return the schema of a store: its columns, with the version and `config` as metadata."""
    import pyarrow as pa

    columns = {
        "clip": pa.string(),
        "seconds": pa.float64(),
        "width": pa.int32(),
        "height": pa.int32(),
        "jpeg": pa.binary(),
    }
    return pa.schema(
        [pa.field(name, kind, nullable=False) for name, kind in columns.items()],
        metadata={_VERSION_KEY: str(STORE_VERSION), _SETTINGS_KEY: json_text(asdict(config))},
    )


def open_store(location: str) -> tuple["lance.LanceDataset", StoreConfig]:
    """Open the latest version of a store; return its dataset and its settings.

    Raises:
        MidwayError: The location is not a store of this version, or an extra is not installed.
    """
    dataset, metadata = _open_dataset(location)
    version = metadata.get(_VERSION_KEY.encode(), b"").decode(errors="replace")
    if not version:
        raise MidwayError(
            f"{location}: is a Lance dataset but not a frame store; make one with `midway prepare`"
        )
    if version != str(STORE_VERSION):
        raise MidwayError(
            f"{location}: is a frame store of version {version}, but this Midway reads version "
            f"{STORE_VERSION}; prepare it again or install the Midway that made it"
        )
    try:
        settings = json.loads(metadata[_SETTINGS_KEY.encode()])
        if not isinstance(settings, dict):
            raise ValueError("no JSON object")
    except (ValueError, KeyError) as error:
        raise MidwayError(f"{location}: has damaged settings ({error}); prepare it again") from None
    config = from_json(StoreConfig, settings, where=location)
    found = {field.name: field.type for field in dataset.schema}
    wrong = [field.name for field in store_schema(config) if found.get(field.name) != field.type]
    if wrong:
        raise MidwayError(
            f"{location}: has no column {', '.join(wrong)} of the right type; prepare it again"
        )
    return dataset, config


def require_store_packages(location: str) -> None:
    """Check that the package of the extra `store` is installed.

    Raises:
        MidwayError: The package is missing.
    """
    try:
        import lance  # noqa: F401
    except ImportError as error:
        raise MidwayError(
            f"{location}: a frame store needs {error.name}; "
            "run `pip install 'midway-network[store]'`"
        ) from error


def _open_dataset(location: str) -> tuple["lance.LanceDataset", dict[bytes, bytes]]:
    require_store_packages(location)
    import lance

    try:
        with lance_errors():
            dataset = lance.dataset(location)
            return dataset, dataset.schema.metadata or {}
    except LanceError as error:
        raise MidwayError(
            f"{location}: cannot be opened as a frame store ({error}); check the path, or make it "
            "with `midway prepare`"
        ) from error


def _batches(dataset: "lance.LanceDataset", location: str) -> Iterator["pa.RecordBatch"]:
    """Yield the names and times of all rows, in order."""
    try:
        with lance_errors():
            scanner = dataset.scanner(columns=["clip", "seconds"], scan_in_order=True)
            yield from scanner.to_batches()
    except LanceError as error:
        raise MidwayError(
            f"{location}: cannot be listed ({error}); copy or prepare it again"
        ) from error


@functools.lru_cache(maxsize=8)
def _process_dataset(location: str, process: int) -> "lance.LanceDataset":
    """Return a handle for reading, one per process, as a forked one must not be shared."""
    return open_store(location)[0]


@contextmanager
def lance_errors() -> Iterator[None]:
    """Convert errors of Lance, as for missing or damaged files or a full disk, to `LanceError`."""
    try:
        yield
    except MidwayError:
        raise
    except Exception as error:  # also Arrow's errors for missing columns and ill-typed values
        raise LanceError(_first_line(error)) from error
    except BaseException as error:
        # On some damaged files Lance panics; this exception is not a subclass of `Exception`.
        if type(error).__name__ != "PanicException":
            raise
        raise LanceError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    # Lance appends the place in its own source code, which does not help users.
    return str(error).partition("\n")[0].partition(", /")[0][:200]
