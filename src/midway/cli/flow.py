"""Command ``midway flow``: optical flow between two images, or along a video."""

from collections.abc import Iterator, Sequence
from io import BytesIO
from math import inf
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from midway.analysis.lettering import enlarged, side_by_side, whole_factor, with_wheel
from midway.atomic import write_picture
from midway.cli.options import check_outputs, parse, say
from midway.data.clip import BadClipError, Frame
from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.flow.checks import FloatFlow
from midway.data.flow.colours import flow_to_rgb
from midway.data.flow.files import flow_suffixes, write_flow
from midway.data.images import read_image
from midway.data.video.file import VideoFile
from midway.data.video.header import VIDEO_SUFFIXES
from midway.data.video.writer import WRITTEN_VIDEO_SUFFIXES, writing_video
from midway.errors import MidwayError, counted
from midway.models.flow.predictor import FlowMethod, Predictor, flow_predictor
from midway.progress import progress

LONGEST_QUANTILE = 0.99
"""Quantile of a video frame's motion that scales its colours; outliers above it are ignored."""
SCALE_PAIRS = 16
"""Number of pairs of a video, evenly spaced, whose motion sets the scale of all its colours."""
PIXELS = FlowMethod(method="pixels")


def main(words: Sequence[str]) -> dict[str, Any]:
    """Compute the flow between two images, or along a video."""
    return parse(flow, words, prog="midway flow")


def flow(
    first: Annotated[Path, tyro.conf.arg(metavar="IMAGE|VIDEO")],
    second: Annotated[Path | None, tyro.conf.arg(metavar="[IMAGE]")] = None,
    /,
    *,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    picture: Path | None = None,
    how: Annotated[FlowMethod, tyro.conf.OmitArgPrefixes] = PIXELS,
    max_pixels: float = 0.0,
) -> dict[str, Any]:
    """Compute optical flow from one image to another, or from each frame of a video to the next.

    Args:
        first: Source image, or a video without a second argument.
        second: Target image of the same size.
        out: Flow file (.flo, .pfm, KITTI's .png, .flo5, .npy); for a video, a video of each frame
            beside its colour-coded flow.
        picture: Images and colour-coded flow as a picture, written in addition.
        how: Method of flow estimation.
        max_pixels: Motion shown in full colour, in pixels; 0 for the largest (in a video, of 16
            pairs of frames).
    """
    if not 0 <= max_pixels < inf:
        raise MidwayError(f"--max-pixels {max_pixels}: give a length, or 0 for the largest motion")
    _check_names(first, second, out, picture)
    predict = flow_predictor(how)
    if second is None:
        return _video(first, out, predict, max_pixels)
    return _pair(first, second, out, picture, predict, max_pixels)


def _check_names(first: Path, second: Path | None, out: Path, picture: Path | None) -> None:
    """Check all file names before anything is computed."""
    if second is None and first.suffix.lower() not in VIDEO_SUFFIXES:
        raise MidwayError(f"{first}: is not a video; give two images or a video")
    if second is None and picture:
        raise MidwayError(f"{picture}: needs two images, not a video; leave --picture out")
    if second is None and out.suffix.lower() not in WRITTEN_VIDEO_SUFFIXES:
        raise MidwayError(
            f"{out}: the flow of a video is a video; give a name like flow.mp4, ending in "
            f"{', '.join(WRITTEN_VIDEO_SUFFIXES)}"
        )
    if second and out.suffix.lower() not in flow_suffixes():
        raise MidwayError(
            f"{out}: is not a flow format; give a name ending in {', '.join(flow_suffixes())}"
        )
    if picture and picture.suffix.lower() not in IMAGE_SUFFIXES:
        raise MidwayError(f"{picture}: is not an image format; give a name like flow.png")
    check_outputs([path for path in (out, picture) if path], [x for x in (first, second) if x])


def _pair(
    first: Path, second: Path, out: Path, picture: Path | None, predict: Predictor, longest: float
) -> dict[str, Any]:
    source, target = read_image(str(first)), read_image(str(second))
    if source.shape != target.shape:
        raise MidwayError(
            f"images differ in size: {first} has {source.shape[1]} x {source.shape[0]} pixels, "
            f"{second} {target.shape[1]} x {target.shape[0]}; resize one"
        )
    found = _finite(predict(source, target), first)
    write_flow(out, found)
    lengths = np.hypot(found[..., 0], found[..., 1])
    is_png = out.suffix.lower() == ".png" and not picture
    note = " (KITTI's format; --picture draws it)" if is_png else ""
    say(f"{out}{note}: mean motion {lengths.mean():.2f} px, largest {lengths.max():.2f} px")
    if picture:
        # Imported only here, because matplotlib takes a third of a second.
        from midway.analysis import pictures

        figure = pictures.flow(
            source[None], target[None], {"flow": found[None]}, max_pixels=longest
        )
        drawn = BytesIO()
        figure.savefig(drawn, format="png")
        write_picture(picture, Image.open(drawn).convert("RGB"))
    return {
        "out": str(out),
        "picture": str(picture) if picture else None,
        "mean_pixels": float(lengths.mean()),
        "max_pixels": float(lengths.max()),
    }


def _video(path: Path, out: Path, predict: Predictor, max_pixels: float) -> dict[str, Any]:
    # One pair of frames at a time, so that memory does not grow with the length of the video.
    count = 0
    with VideoFile(str(path)) as video, writing_video(out, video.fps) as write:
        video.warn()
        longest = max_pixels or _longest(video, predict, path)
        source = None
        for target in progress(_frames(video), "frames", len(video.frame_seconds)):
            if source is not None:
                found = _finite(predict(source.image, target.image), path)
                write(_beside(source, found, longest), source.seconds)
                count += 1
            source = target
        if not count:
            raise BadClipError(str(path), "has a single frame", "give at least two frames")
    pairs = f"{counted(count, 'pair')} of frames"
    say(f"{out}: flow of {pairs}, full colour at {longest:.1f} px")
    return {"out": str(out), "pairs": count, "max_pixels": longest}


def _longest(video: VideoFile, predict: Predictor, path: Path) -> float:
    """Return the longest motion of a few pairs, at least 1 pixel: one scale for the whole video."""
    times = video.frame_seconds
    last = max(len(times) - 2, 0)
    chosen = np.unique(np.linspace(0, last, min(SCALE_PAIRS, last + 1)).round().astype(int))
    longest = 1.0
    for number in progress(chosen.tolist(), "pairs for the scale"):
        pair = video.frames_at(times[number : number + 2].tolist())
        if len(pair) == 2:
            found = _finite(predict(pair[0].image, pair[1].image), path)
            lengths = np.hypot(found[..., 0], found[..., 1])
            longest = max(longest, float(np.quantile(lengths, LONGEST_QUANTILE)))
    return longest


def _beside(source: Frame, found: FloatFlow, longest: float) -> NDArray[np.uint8]:
    """Draw a frame beside its flow and the colour wheel."""
    factor = whole_factor(source.image)
    image, colours = (
        enlarged(each, factor) for each in (source.image, flow_to_rgb(found, longest))
    )
    parts = [(f"{source.seconds:.2f} s", image), ("flow to the next frame", colours)]
    return with_wheel(side_by_side(parts), longest)


def _finite(found: FloatFlow, path: Path) -> FloatFlow:
    """Return the flow, or raise an error if a value is NaN or infinite."""
    if not np.isfinite(found).all():
        raise MidwayError(f"{path}: predicted flow is not finite; check the network's weights")
    return found


def _frames(video: VideoFile) -> Iterator[Frame]:
    """Yield each frame once, in order."""
    last_seconds = -1.0
    for frame in video.frames_in_order(video.frame_seconds.tolist()):
        # Packets whose frames are never shown repeat the frame before.
        if frame.seconds > last_seconds:
            last_seconds = frame.seconds
            yield frame
