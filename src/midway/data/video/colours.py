"""Colour matrices of decoded frames."""

from av.video.frame import VideoFrame

_UNSPECIFIED = 2
_CONVERTED = frozenset([0, 1, _UNSPECIFIED, 4, 5, 6, 7, 9])
"""Matrix coefficients (ITU-T H.273) that FFmpeg converts to RGB."""


def with_known_colours(frame: VideoFrame) -> VideoFrame:
    """Return a frame with its matrix reset to unspecified if FFmpeg cannot convert from it.

    Such a matrix is usually a wrong tag; the FFmpeg command ignores it too.
    """
    if frame.colorspace not in _CONVERTED:
        frame.colorspace = _UNSPECIFIED
    return frame
