"""Videos kept open by this process, so that an index of hours of video is read once."""

import os
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from midway.data.files import is_url
from midway.data.video.file import VideoFile

MAX_IDLE = 4
"""Files kept open that nobody reads from; each holds its index and a few decoded pictures."""

_Key = tuple[str, tuple[int, int, int] | None]

_idle: OrderedDict[_Key, VideoFile] = OrderedDict()
# A forked process shares the place in an open file with its parent: both would read rubbish.
os.register_at_fork(after_in_child=_idle.clear)


@contextmanager
def open_video(location: str) -> Iterator[VideoFile]:
    """A video, open already if it was read lately and has not changed since.

    One whose reading fails is closed: what broke it may have left its reader in any state.

    Args:
        location: Path or URL.

    Raises:
        BadClipError: The file is no video, has a single frame or cannot be decoded.
    """
    key = location, _version(location)
    # While it is in use it is not in the table: two threads never read from the same one.
    video = _idle.pop(key, None) or VideoFile(location)
    try:
        yield video
    except BaseException:
        video.close()
        raise
    twin = _idle.pop(key, None)
    if twin is not None:
        twin.close()
    _idle[key] = video
    while len(_idle) > MAX_IDLE:
        _idle.popitem(last=False)[1].close()


def _version(location: str) -> tuple[int, int, int] | None:
    """What tells a local file from another put in its place."""
    if is_url(location):
        return None
    try:
        status = Path(location).stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
