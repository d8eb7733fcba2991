"""midway flow A B -o out.flo | midway flow VIDEO -o flow.mp4: optical flow of images or a video."""

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from midway.atomic import write_picture
from midway.cli.options import check_outputs, parse, say
from midway.data.clip import BadClipError
from midway.data.clips.frame_folder import IMAGE_SUFFIXES, read_image
from midway.data.flow.colours import flow_to_rgb, longest_pixels
from midway.data.flow.files import FloatFlow, flow_suffixes, write_flow
from midway.data.video.file import VIDEO_SUFFIXES, VideoFile
from midway.data.video.writer import WRITTEN_VIDEO_SUFFIXES, writing_video
from midway.errors import MidwayError
from midway.models.flow.predictor import FlowMethod, Predictor, flow_predictor

LONGEST_QUANTILE = 0.99
"""Quantile of the motion in a frame of a video, so that few stray pixels do not set the colours."""
PIXELS = FlowMethod(method="pixels")


def main(words: Sequence[str]) -> dict[str, Any]:
    """Find the flow between two images, or through a video."""
    return parse(flow, words, prog="midway flow")


def flow(
    first: Path,
    second: Path | None = None,
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    picture: Path | None = None,
    how: Annotated[FlowMethod, tyro.conf.OmitArgPrefixes] = PIXELS,
    max_pixels: float = 0.0,
) -> dict[str, Any]:
    """Optical flow from one image to another, or from each frame of a video to the next.

    Args:
        first: Image, or a video if it is alone.
        second: Image of the same size.
        out: Flow file (.flo, .pfm, .png as KITTI's, .flo5 or .npy); of a video, a video of the
            flow's colours.
        picture: Also the flow's colours as an image.
        how: How flow is found.
        max_pixels: Motion that has full colour; 0 for the longest, in a video the longest so far.
    """
    if not 0 <= max_pixels < inf:
        raise MidwayError(f"--max-pixels {max_pixels}: give a length, or 0 for the longest motion")
    _check_names(first, second, out, picture)
    predict = flow_predictor(how)
    if second is None:
        return _video(first, out, predict, max_pixels)
    return _pair(first, second, out, picture, predict, max_pixels)


def _check_names(first: Path, second: Path | None, out: Path, picture: Path | None) -> None:
    """Complain before the work, not after it."""
    if second is None and first.suffix.lower() not in VIDEO_SUFFIXES:
        raise MidwayError(f"{first}: no video, and no second image; give two images or a video")
    if second is None and picture:
        raise MidwayError(f"{picture}: a video has no picture beside it; leave --picture out")
    if second is None and out.suffix.lower() not in WRITTEN_VIDEO_SUFFIXES:
        raise MidwayError(
            f"{out}: flow of a video is written as a video; give a name like flow.mp4, ending in "
            f"{', '.join(WRITTEN_VIDEO_SUFFIXES)}"
        )
    if second and out.suffix.lower() not in flow_suffixes():
        raise MidwayError(
            f"{out}: no flow format; give a name ending in {', '.join(flow_suffixes())}"
        )
    if picture and picture.suffix.lower() not in IMAGE_SUFFIXES:
        raise MidwayError(f"{picture}: no image format; give a name like flow.png")
    check_outputs([path for path in (out, picture) if path], [x for x in (first, second) if x])


def _pair(
    first: Path, second: Path, out: Path, picture: Path | None, predict: Predictor, longest: float
) -> dict[str, Any]:
    source, target = read_image(str(first)), read_image(str(second))
    if source.shape != target.shape:
        raise MidwayError(
            f"images differ in size: {first} has {source.shape[0]}x{source.shape[1]} pixels, "
            f"{second} {target.shape[0]}x{target.shape[1]}; resize one"
        )
    found = _finite(predict(source, target), first)
    write_flow(out, found)
    lengths = np.hypot(found[..., 0], found[..., 1])
    say(f"{out}: motion of {lengths.mean():.2f} px in the mean, {lengths.max():.2f} at most")
    if picture:
        colours = flow_to_rgb(found, longest or longest_pixels(found))
        write_picture(picture, Image.fromarray(colours))
    return {
        "out": str(out),
        "picture": str(picture) if picture else None,
        "mean_pixels": float(lengths.mean()),
        "max_pixels": float(lengths.max()),
    }


def _video(path: Path, out: Path, predict: Predictor, max_pixels: float) -> dict[str, Any]:
    # Frames are read, and their flow is written, one at a time: memory does not grow with length.
    longest, count = max_pixels or 1.0, 0
    with VideoFile(str(path)) as video, writing_video(out, video.fps) as write:
        source = None
        for target in _frames(video):
            if source is not None:
                found = _finite(predict(source, target), path)
                if not max_pixels:
                    lengths = np.hypot(found[..., 0], found[..., 1])
                    longest = max(longest, float(np.quantile(lengths, LONGEST_QUANTILE)))
                write(flow_to_rgb(found, longest))
                count += 1
            source = target
        if not count:
            raise BadClipError(str(path), "has a single frame", "give at least two frames")
    say(f"{out}: flow of {count} pairs of frames, full colour at {longest:.1f} px")
    return {"out": str(out), "pairs": count, "max_pixels": longest}


def _finite(found: FloatFlow, path: Path) -> FloatFlow:
    """Flow as it is; a network whose weights hold NaN would else colour a whole video by it."""
    if not np.isfinite(found).all():
        raise MidwayError(f"{path}: predicted flow is not finite; check the network's weights")
    return found


def _frames(video: VideoFile) -> Iterator[NDArray[np.uint8]]:
    """Each frame once, in order; those that follow faster than the video's mean rate are passed."""
    last_seconds = -1.0
    numbers = range(round(video.duration_seconds * video.fps) + 1)
    # Half a frame late: times in a file are rounded either way.
    for frame in video.frames_in_order([(number + 0.5) / video.fps for number in numbers]):
        if frame.seconds > last_seconds:
            last_seconds = frame.seconds
            yield frame.image
