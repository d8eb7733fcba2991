"""midway track VIDEO --point X,Y -o out.mp4: follow points through a video."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from PIL import Image

from midway.analysis.perturbation import fast_dtype
from midway.analysis.track_pictures import draw_tracks, track_strip
from midway.analysis.tracking import Method, Tracks, track_points
from midway.atomic import write_picture
from midway.cli.options import check_outputs, parse, parse_points, say
from midway.cli.perturb import SHIPPED
from midway.data.clip import ROUNDING_SECONDS
from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.video.file import VideoFile
from midway.data.video.frames import VideoFrames
from midway.data.video.writer import WRITTEN_VIDEO_SUFFIXES, writing_video
from midway.errors import MidwayError
from midway.models.flow.predictor import FlowMethod, Predictor, flow_predictor
from midway.models.weights.load import load
from midway.nn.device import pick_device

PIXELS = FlowMethod(method="pixels")


def main(words: Sequence[str]) -> dict[str, Any]:
    """Follow points through a video."""
    return parse(track, words, prog="midway track")


def track(
    video: Path,
    /,
    *,
    point: tuple[str, ...],
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    picture: Path | None = None,
    start_seconds: float = 0.0,
    method: Method = "midway",
    network: str = SHIPPED,
    level: int | None = None,
    fps: float = 0.0,
    short_side: int = 0,
    draws: int = 16,
    seed: int = 0,
    flow: FlowMethod = PIXELS,
) -> dict[str, Any]:
    """Follow points through a video, from where they start to its end and back to its beginning.

    Args:
        video: Video file.
        point: X,Y in pixels of the frame they start in. Several may be given.
        out: Video with the tracks drawn; yellow is sure, blue is lost.
        picture: Also a strip of four frames as an image.
        start_seconds: When the points are there, after the first frame.
        method: The paper's rule; by features or heatmaps alone; by flow.
        network: Midway network: a run folder, a file, a hub id, or synthetic-tiny.
        level: Of features and heatmaps; the highest with a forward model if not given.
        fps: Frames per second to go by; 0 for all that there are.
        short_side: Pixels of the frames' shorter side as the network sees it; 0 for the side that
            it is made for.
        draws: Perturbations that a heatmap is the mean of.
        seed: Of the draws.
        flow: How flow is found, by method flow.
    """
    _check(video, out, picture, fps)
    points = parse_points(point)
    device = pick_device()
    loaded = None if method == "flow" else load(network).to(device)
    predict = _predictor(flow, network) if method == "flow" else None
    with VideoFile(str(video)) as opened:
        frames = VideoFrames(opened, fps=fps)
        tracks = track_points(
            loaded,
            frames,
            points,
            torch.full((len(points),), _number(frames, start_seconds)),
            method=method,
            level=level,
            short_side=short_side,
            flow=predict,
            num_draws=draws,
            seed=seed,
            dtype=fast_dtype(device),
        )
        _draw(frames, tracks, out, picture)
    say(f"{out}: {len(points)} points through {len(frames)} frames, by {method}")
    return {"out": str(out), "picture": picture and str(picture)} | _told(frames, tracks)


def _check(video: Path, out: Path, picture: Path | None, fps: float) -> None:
    """Complain before the work, not after it."""
    if not video.exists():
        raise MidwayError(f"{video}: no such file; check the path")
    if not 0 <= fps < inf:
        raise MidwayError(f"--fps {fps:g}: give a rate, or 0 for all frames")
    if out.suffix.lower() not in WRITTEN_VIDEO_SUFFIXES:
        raise MidwayError(
            f"{out}: tracks are drawn into a video; give a name like tracks.mp4, ending in "
            f"{', '.join(WRITTEN_VIDEO_SUFFIXES)}"
        )
    if picture and picture.suffix.lower() not in IMAGE_SUFFIXES:
        raise MidwayError(f"{picture}: no image format; give a name like tracks.png")
    check_outputs([path for path in (out, picture) if path], [video])


def _predictor(flow: FlowMethod, network: str) -> Predictor:
    """Return the flow predictor; features and dynamics default to the command's network."""
    if flow.method in ("features", "dynamics"):
        flow = replace(flow, network=flow.network or Path(network))
    return flow_predictor(flow)


def _number(frames: VideoFrames, seconds: float) -> int:
    """The frame that is shown at a time."""
    if not 0 <= seconds <= frames.seconds[-1] + 1 / frames.fps:
        raise MidwayError(
            f"--start-seconds {seconds:g}: the last frame is at {frames.seconds[-1]:.2f} s; give a "
            "time from 0 to that"
        )
    return bisect_right(frames.seconds, seconds + ROUNDING_SECONDS) - 1


def _draw(frames: VideoFrames, tracks: Tracks, out: Path, picture: Path | None) -> None:
    with writing_video(out, frames.fps) as write:
        for number in range(len(frames)):
            image = frames[number].permute(1, 2, 0).numpy()
            write(draw_tracks(image, tracks, number))
    if picture:
        write_picture(picture, Image.fromarray(track_strip(frames, tracks)))


def _told(frames: VideoFrames, tracks: Tracks) -> dict[str, Any]:
    return {
        "seconds": frames.seconds,
        "points": tracks.points.tolist(),
        "confidence": tracks.confidence.tolist(),
    }
