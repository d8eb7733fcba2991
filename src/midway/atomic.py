"""Atomic writing of files."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedWriter, BytesIO, FileIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from midway.errors import MidwayError

if TYPE_CHECKING:
    from PIL.Image import Image


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: it gets its name only after its contents are on disk.

    If the process is killed before that, an existing file of this name is unchanged. After an error
    nothing is left behind.

    Args:
        path: Final path; the contents are first written to ``<path>.tmp``.
        write: Function that writes the contents to the open binary file; called once.

    Raises:
        OSError: The file cannot be written, for example on a full disk; it names `path`.

    """
    unfinished = _unfinished(path)
    with naming(path), _removed_after_error(unfinished):
        with _File(FileIO(unfinished, "w")) as file:
            try:
                write(file)
            except Exception as error:
                # torch.save converts errors of the file to a RuntimeError without a reason.
                raise file.error or error from error
            file.flush()
            os.fsync(file.fileno())
        unfinished.replace(path)
        # The rename is durable only after its directory entry is on disk.
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, as `write_atomically` does."""
    write_atomically(path, lambda file: file.write(text.encode()))


def write_picture(path: Path, image: "Image", **options: Any) -> None:
    """Write a Pillow image atomically, in the format given by the suffix.

    Args:
        path: Name of the file.
        image: The picture.
        options: Options of the format, see `PIL.Image.Image.save`.

    Raises:
        MidwayError: Pillow cannot write this format, or not this image in it.
        OSError: The file cannot be written; it names `path`.

    """
    from PIL import Image

    name = Image.registered_extensions().get(path.suffix.lower())
    # In memory first: on a full disk Pillow leaves some formats incomplete without an error.
    buffer = BytesIO()
    try:
        image.save(buffer, format=name or path.suffix.lstrip("."), **options)
    except (KeyError, ValueError, OSError) as error:
        raise MidwayError(
            f"{path}: cannot be written in this format ({error}); give a name that ends in .png"
        ) from error
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """Put a file's path into OS errors that name no file, or its temporary file.

    Raises:
        OSError: The block raised one.

    """
    try:
        yield
    except OSError as error:
        if error.filename and Path(os.fsdecode(error.filename)) != _unfinished(path):
            raise
        reason = error.strerror or str(error)
        raise OSError(error.errno or 0, reason, str(path)) from error


def _unfinished(path: Path) -> Path:
    return path.with_name(path.name + ".tmp")


class _File(BufferedWriter):
    """Binary file that keeps the first error of a write."""

    error: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.error = self.error or error
            raise


@contextmanager
def _removed_after_error(unfinished: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        with suppress(OSError):  # must not hide the error itself
            unfinished.unlink()
        raise
