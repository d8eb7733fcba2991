"""Where a command writes to, looked at before the work and not after it."""

from collections.abc import Sequence
from pathlib import Path

from midway.errors import MidwayError


def check_outputs(written: Sequence[Path], read: Sequence[Path]) -> None:
    """See that files can be written without loss.

    Args:
        written: What the command is to write.
        read: What it reads.

    Raises:
        MidwayError: A folder is not there, or an input would be written over.

    """
    for path in written:
        if not path.parent.is_dir():
            raise MidwayError(f"{path}: no folder {path.parent}; make it first")
        if path.resolve() in [each.resolve() for each in read]:
            raise MidwayError(f"{path}: is an input and would be lost; give another name")
