"""The frame store: a Lance data set with one JPEG a row, read at random.

Columns: `clip` (its name), `seconds` after the first frame of the clip, `width` and `height` in
pixels, `jpeg`. The rows of a clip follow one another in order of time. What the frames were made
with is in the metadata of the schema, so that a store says itself what it is.
"""

import functools
import json
import math
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from midway.config import from_json, require
from midway.data.clip import ROUNDING_SECONDS, BadClipError, Frame
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
"""Twice an 8K frame; a damaged header can ask for 12 GB."""
_MAX_QUALITY = 100


class LanceError(Exception):
    """What Lance said, in one line."""


@dataclass(frozen=True, kw_only=True)
class StoreConfig:
    """Which frames a store holds, and how."""

    fps: float = 10.0
    """Frames kept a second; where the source has fewer, all of its own."""
    short_side: int = 480
    """Pixels of the shorter side; smaller frames stay as they are."""
    jpeg_quality: int = 90
    """From 1 to 100."""
    source_fps: float = 30.0
    """Rate at which the numbers of frame files count; videos know their own."""

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
    """A clip of a store; a clip that is always open, each process opening the store once."""

    name: str
    location: str
    """The store."""
    fps: float
    """Rate the store was made at."""
    first_row: int
    """Row of the first frame; those of the others follow."""
    frame_seconds: NDArray[np.float64]
    """Times (frames,) of the frames, from 0 and increasing."""

    @property
    def signals_location(self) -> None:
        """A store holds frames alone."""
        return

    def open(self) -> AbstractContextManager["StoreClip"]:
        """The clip itself: there is nothing to open."""
        return nullcontext(self)

    def frames_at(self, seconds: Sequence[float]) -> list[Frame]:
        """For each time the last frame that starts at or before it; the first one for a negative.

        Raises:
            BadClipError: A frame is damaged, or no longer where it was.
            MidwayError: The store has gone.
        """
        asked = np.asarray(seconds) + ROUNDING_SECONDS
        following = np.searchsorted(self.frame_seconds, asked, side="right")
        places = np.maximum(following - 1, 0).tolist()
        wanted = sorted(set(places))
        frames = dict(zip(wanted, self._read(wanted), strict=True))
        return [frames[place] for place in places]

    def _read(self, places: list[int]) -> list[Frame]:
        dataset = _process_dataset(self.location, os.getpid())
        rows = [self.first_row + place for place in places]
        try:
            with lance_errors():
                table = dataset.take(rows, columns=["clip", "seconds", "width", "height", "jpeg"])
        except LanceError as error:
            _process_dataset.cache_clear()
            open_store(self.location)  # says so if the whole store has gone
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
            raise self._bad(place, "is no longer where it was", "start the run again")
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
                place, f"is no whole JPEG ({_first_line(error)})", "prepare the store again"
            ) from error

    def _bad(self, place: int, reason: str, remedy: str) -> BadClipError:
        where = f"{self.name} at {self.frame_seconds[place]:.3f} s"
        return BadClipError(self.location, f"the frame of {where} {reason}", remedy)


def is_store(location: str) -> bool:
    """Whether a path or URL is to be read as a frame store; it may still turn out to be none."""
    path = location.rstrip("/")
    return path.endswith(STORE_SUFFIX) or (not is_url(path) and (Path(path) / "_versions").is_dir())


def read_store(location: str) -> list[StoreClip]:
    """The clips of a store in the order they were written; reads no picture.

    Raises:
        MidwayError: It is no store, one of another version, or holds a clip twice.
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
            # A batch may begin amid a clip.
            if not names or name != names[-1]:
                names.append(name)
                starts.append(first_row + start)
        times.append(batch.column("seconds").to_numpy())
        first_row += len(batch)
    if len(set(names)) != len(names):
        twice = Counter(names).most_common(1)[0][0]
        raise MidwayError(
            f"{location}: holds {twice} in two places, as two processes wrote it; prepare it again"
        )
    parts = np.split(np.concatenate([*times, np.empty(0)]), starts[1:])
    return [
        StoreClip(name, location, config.fps, start, seconds)
        for name, start, seconds in zip(names, starts, parts, strict=False)
    ]


def store_schema(config: StoreConfig) -> "pa.Schema":
    """Columns of a store made with `config`, which is in its metadata."""
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
        metadata={_VERSION_KEY: str(STORE_VERSION), _SETTINGS_KEY: json.dumps(asdict(config))},
    )


def open_store(location: str) -> tuple["lance.LanceDataset", StoreConfig]:
    """The data set of a store as it is now, and what its frames were made with.

    Raises:
        MidwayError: It is no store or one of another version, or an extra is not installed.
    """
    dataset, metadata = _open_dataset(location)
    version = metadata.get(_VERSION_KEY.encode(), b"").decode(errors="replace")
    if not version:
        raise MidwayError(
            f"{location}: is a Lance data set but no frame store; make one with `midway prepare`"
        )
    if version != str(STORE_VERSION):
        raise MidwayError(
            f"{location}: is a frame store of version {version}, this Midway reads version "
            f"{STORE_VERSION}; prepare it again or install the Midway that made it"
        )
    try:
        settings = json.loads(metadata[_SETTINGS_KEY.encode()])
    except (ValueError, KeyError) as error:
        raise MidwayError(f"{location}: has damaged settings ({error}); prepare it again") from None
    return dataset, from_json(StoreConfig, settings, where=location)


def require_store_packages(location: str) -> None:
    """Make sure that what stores need is installed.

    Raises:
        MidwayError: It is not.
    """
    try:
        import lance  # noqa: F401
        import simplejpeg  # noqa: F401
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
    """Names and times of all rows, in order."""
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
    """A handle for reading; one a process, as what a parent opened is not its children's."""
    return open_store(location)[0]


@contextmanager
def lance_errors() -> Iterator[None]:
    """Turns what Lance raises for a missing, damaged or full disk into a `LanceError`."""
    try:
        yield
    except (OSError, ValueError, RuntimeError) as error:
        raise LanceError(_first_line(error)) from error
    except BaseException as error:
        # On some damaged files Lance panics, which Python sees as no ordinary exception.
        if type(error).__name__ != "PanicException":
            raise
        raise LanceError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    # Lance says what is wrong, and then where in its own source it noticed.
    return str(error).partition("\n")[0].partition(", /")[0][:200]
