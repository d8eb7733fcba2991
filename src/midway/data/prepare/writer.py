"""Writing of clips to the data files of a frame store, which a later commit makes visible."""

import time
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

from midway.data.clip import BadClipError, Frame
from midway.data.clips.skipped import SkippedClip
from midway.data.clips.store import LanceError, StoreConfig, lance_errors, store_schema
from midway.data.prepare.decode import ClipSource, decode_at_rate
from midway.data.workers.pool import Reading
from midway.errors import MidwayError

if TYPE_CHECKING:
    from lance import FragmentMetadata

FRAGMENT_BYTES = 64 * 2**20
"""JPEG bytes per file, which a worker buffers in memory before it writes them."""
_ROWS_PER_BATCH = 64
_REMEDY = "re-encode it or remove it"
_ANNOUNCE_SECONDS = 1.0


@dataclass(frozen=True)
class WriteResult:
    """Result of a task: its uncommitted files in order, and the skipped clips."""

    num_sources: int
    """Number of clips of the task, including skipped ones."""
    fragments: tuple["FragmentMetadata", ...] = ()
    skipped: tuple[SkippedClip, ...] = ()

    @property
    def frames(self) -> int:
        """Number of written frames."""
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
    """Function that decodes the clips of a task and writes their rows.

    A bad clip leaves no rows. At most twice `FRAGMENT_BYTES` are buffered.
    """

    destination: str
    """Path or URL of the store."""
    config: StoreConfig
    """Settings of the store."""
    threads: int = 1
    """Threads per decoder."""

    def __call__(self, sources: tuple[ClipSource, ...], reading: Reading) -> WriteResult:
        """Write the clips in the given order.

        Raises:
            MidwayError: The store cannot be written.
        """
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
                # A long clip has separate files, so that they can be dropped if it turns out bad.
                fragments += self._write(pending) + own
                pending = []
            pending += rows
            if sum(len(row.jpeg) for row in pending) >= FRAGMENT_BYTES:
                fragments += self._write(pending)
                pending = []
        fragments += self._write(pending)
        return WriteResult(len(sources), tuple(fragments), tuple(skipped))

    def _announced(self, source: ClipSource, reading: Reading) -> Iterator[Row]:
        """Yield the rows of a clip; announce it regularly, so that a long one does not time out."""
        if any("\ud800" <= letter <= "\udfff" for letter in source.name):
            raise BadClipError(source.location, "has a name that is not valid UTF-8", "rename it")
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
            # In small batches, as one batch would copy all bytes.
            for start in range(0, len(rows), _ROWS_PER_BATCH):
                some = [asdict(row) for row in rows[start : start + _ROWS_PER_BATCH]]
                yield pa.RecordBatch.from_pylist(some, schema=schema)

        reader = pa.RecordBatchReader.from_batches(schema, batches())
        try:
            with lance_errors():
                return write_fragments(reader, self.destination)
        except LanceError as error:
            raise MidwayError(
                f"{self.destination}: cannot be written ({error}); check free space and permissions"
            ) from error


def rows_of(source: ClipSource, config: StoreConfig, *, threads: int = 1) -> Generator[Row]:
    """Yield the rows of a clip for a store with the settings `config`.

    Raises:
        BadClipError: The clip cannot be read to its end.
    """
    frames = decode_at_rate(source, fps=config.fps, short_side=config.short_side, threads=threads)
    for frame in frames:
        height, width, _ = frame.image.shape
        yield Row(source.name, frame.seconds, width, height, _jpeg(frame, config.jpeg_quality))


def _jpeg(frame: Frame, quality: int) -> bytes:
    import simplejpeg

    return simplejpeg.encode_jpeg(
        frame.image, quality=quality, colorspace="RGB", colorsubsampling="420"
    )
