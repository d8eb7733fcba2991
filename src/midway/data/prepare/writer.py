"""From clips to the files of a frame store; what is written counts once it is committed."""

import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from midway.data.clip import BadClipError, Frame
from midway.data.clips.skipped import SkippedClip
from midway.data.clips.store import LanceError, StoreConfig, lance_errors, store_schema
from midway.data.prepare.decode import ClipSource, frames_through
from midway.data.workers.pool import Reading
from midway.errors import MidwayError

if TYPE_CHECKING:
    from lance import FragmentMetadata

FRAGMENT_BYTES = 64 * 2**20
"""JPEG bytes after which a file is written: what a worker holds, and the usual size of a file."""
_ROWS_PER_BATCH = 64
_REMEDY = "re-encode it or remove it"
_ANNOUNCE_SECONDS = 1.0


@dataclass(frozen=True)
class Written:
    """What came of some clips: files not yet committed, in order, and the clips left out."""

    num_sources: int
    fragments: tuple["FragmentMetadata", ...] = ()
    skipped: tuple[SkippedClip, ...] = ()

    @property
    def frames(self) -> int:
        """How many were written."""
        return sum(fragment.physical_rows for fragment in self.fragments)


@dataclass(frozen=True)
class Row:
    """One frame as a row of a store."""

    clip: str
    seconds: float
    width: int
    height: int
    jpeg: bytes = field(repr=False)


@dataclass(frozen=True, kw_only=True)
class ClipWriter:
    """The work of one task: read clips through and write their rows at the store.

    A clip that turns out bad leaves no row behind. At most twice `FRAGMENT_BYTES` are held.
    """

    destination: str
    config: StoreConfig
    threads: int = 1
    """Of each decoder."""

    def __call__(self, sources: tuple[ClipSource, ...], reading: Reading) -> Written:
        """Write the clips in the order given."""
        fragments: list[FragmentMetadata] = []
        skipped: list[SkippedClip] = []
        pending: list[Row] = []
        for source in sources:
            if source.name in reading.lost:
                lost = BadClipError(source.location, reading.lost[source.name], _REMEDY)
                skipped.append(SkippedClip(source.name, str(lost)))
                continue
            own: list[FragmentMetadata] = []
            rows: list[Row] = []
            num_bytes = 0
            try:
                for row in self._announced(source, reading):
                    rows.append(row)
                    num_bytes += len(row.jpeg)
                    if num_bytes >= FRAGMENT_BYTES:
                        own += self._write(rows)
                        rows, num_bytes = [], 0
            except BadClipError as error:
                skipped.append(SkippedClip(source.name, str(error)))
                continue
            if own:
                # A long clip has files of its own, so that they could be dropped if it went bad.
                fragments += self._write(pending) + own
                pending = []
            pending += rows
            if sum(len(row.jpeg) for row in pending) >= FRAGMENT_BYTES:
                fragments += self._write(pending)
                pending = []
        fragments += self._write(pending)
        return Written(len(sources), tuple(fragments), tuple(skipped))

    def _announced(self, source: ClipSource, reading: Reading) -> Iterator[Row]:
        """The rows of a clip; a long one is announced again and again, as long as it goes on."""
        if any("\ud800" <= letter <= "\udfff" for letter in source.name):
            raise BadClipError(source.location, "has a name that is no UTF-8", "rename it")
        reading(source.name)
        announced = time.monotonic()
        for row in rows_of(source, self.config, threads=self.threads):
            if time.monotonic() > announced + _ANNOUNCE_SECONDS:
                reading(source.name)
                announced = time.monotonic()
            yield row

    def _write(self, rows: list[Row]) -> list["FragmentMetadata"]:
        if not rows:
            return []
        import pyarrow as pa
        from lance.fragment import write_fragments

        schema = store_schema(self.config)

        def batches() -> Iterator[pa.RecordBatch]:
            # A few at a time: the bytes of all of them would be in memory twice.
            for start in range(0, len(rows), _ROWS_PER_BATCH):
                some = [asdict(row) for row in rows[start : start + _ROWS_PER_BATCH]]
                yield pa.RecordBatch.from_pylist(some, schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        try:
            with lance_errors():
                return write_fragments(reader, self.destination)
        except LanceError as error:
            raise MidwayError(
                f"{self.destination}: cannot be written ({error}); is there room, and the right?"
            ) from error


def rows_of(source: ClipSource, config: StoreConfig, *, threads: int = 1) -> Generator[Row]:
    """The frames of a clip that a store of `config` holds.

    Raises:
        BadClipError: The clip cannot be read to its end.
    """
    frames = frames_through(source, fps=config.fps, short_side=config.short_side, threads=threads)
    for frame in frames:
        height, width, _ = frame.image.shape
        yield Row(source.name, frame.seconds, width, height, _jpeg(frame, config.jpeg_quality))


def _jpeg(frame: Frame, quality: int) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(
        frame.image, quality=quality, colorspace="RGB", colorsubsampling="420"
    )
