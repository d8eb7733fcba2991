"""Files that are complete or absent."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Let `write` fill a file that gets its name only when it is safely on disk.

    Until then a file that had the name before stays as it was, also if the process is killed.

    Args:
        path: Name of the finished file; a neighbour ending in ``.tmp`` is used on the way.
        write: Called once with the open binary file.

    """
    unfinished = path.with_name(path.name + ".tmp")
    with unfinished.open("wb") as file:
        write(file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)
    # The new name itself is safe only once the folder is.
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
