"""Where a long video has ended though its file goes on: the Walking Tours files do."""

import numpy as np
from numpy.typing import NDArray

from midway.data.video.file import open_video

MAX_BLANK_SPREAD = 8
"""Grey levels between the darkest and the brightest percent of a picture that shows nothing."""

_LUMA = np.array([0.299, 0.587, 0.114])


def blank_tail_start(location: str) -> float | None:
    """Seconds at which the blank end of a video starts; None if its last frame shows something.

    The blank part is taken to be contiguous: it is found by halving, in about 20 seeks for a
    video of hours. 0 if all of it is blank.

    Args:
        location: Path or URL.

    Raises:
        BadClipError: The video cannot be read, or ends before its header says.
    """
    with open_video(location) as video:
        last = video.frames_at([video.duration_seconds])[0]
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
    """Whether a picture (height, width, 3) is of one grey throughout, but for noise."""
    darkest, brightest = np.percentile(image[::4, ::4] @ _LUMA, [1, 99])
    return bool(brightest - darkest <= MAX_BLANK_SPREAD)
