"""Atomic writing of files."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file atomically: it gets its name only after its contents are on disk.

    If the process is killed before that, an existing file of this name is unchanged.

    Args:
        path: Final path; the contents are first written to ``<path>.tmp``.
        write: Function that writes the contents to the open binary file; called once.

    """
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    # The rename is durable only after its directory entry is on disk.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
