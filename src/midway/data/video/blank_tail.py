"""Detection of a blank ending in a long video, as the Walking Tours files have."""

import numpy as np
from numpy.typing import NDArray

from midway.data.images import LUMA
from midway.data.video.file import open_video

MAX_BLANK_SPREAD = 8
"""Largest range of luma, from the 1st to the 99th percentile (0 to 255), of a blank frame."""


def blank_tail_start(location: str, last_seconds: float | None = None) -> float | None:
    """Return the time at which the blank ending of a video starts.

    The blank part is assumed to be contiguous. A binary search finds its start, in about 20 seeks
    for a video of several hours.

    Args:
        location: Path or URL.
        last_seconds: Time of the last frame; None for the one in the header.

    Returns:
        Seconds after the first frame; 0 if the whole video is blank, None if its last frame is not.

    Raises:
        BadClipError: The video cannot be read, or is shorter than its header states.
    """
    with open_video(location) as video:
        end = video.duration_seconds if last_seconds is None else last_seconds
        last = video.frames_at([end])[0]
        if not is_blank(last.image):
            return None
        first = video.frames_at([0])[0]
        if is_blank(first.image):
            return 0.0
        shown_seconds, blank_seconds = 0.0, last.seconds
        while blank_seconds - shown_seconds > 0.5 / video.fps:
            middle = video.frames_at([(shown_seconds + blank_seconds) / 2])[0]
            if is_blank(middle.image):
                blank_seconds = middle.seconds
            else:
                shown_seconds = (shown_seconds + blank_seconds) / 2
        return blank_seconds


def is_blank(image: NDArray[np.uint8]) -> bool:
    """Return whether an RGB image (height, width, 3) has one luma throughout, up to noise."""
    darkest, brightest = np.percentile(image[::4, ::4] @ LUMA, [1, 99])
    return bool(brightest - darkest <= MAX_BLANK_SPREAD)
