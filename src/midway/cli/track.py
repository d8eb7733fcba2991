"""Command ``midway track VIDEO --point X,Y -o out.mp4``: follow points through a video."""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from PIL import Image
from torch import Tensor

from midway.analysis.inputs import suited_window
from midway.analysis.perturbation import fast_dtype
from midway.analysis.track_pictures import track_frame, track_strip
from midway.analysis.track_steps import BY_FEATURES
from midway.analysis.tracking import Method, Tracks, track_points
from midway.atomic import write_picture
from midway.cli.options import check_outputs, parse, parse_points, say, short_names
from midway.cli.perturb import SHIPPED
from midway.data.clip import ROUNDING_SECONDS
from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.video.file import VideoFile
from midway.data.video.frames import VideoFrames
from midway.data.video.writer import WRITTEN_VIDEO_SUFFIXES, writing_video
from midway.errors import MidwayError, counted
from midway.models.encoders.base import Encoder
from midway.models.flow.predictor import FlowMethod, Predictor, flow_predictor
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.models.weights.sources import load_encoder, read_source
from midway.nn.device import pick_device
from midway.progress import progress

PIXELS = FlowMethod(method="pixels")


def main(words: Sequence[str]) -> dict[str, Any]:
    """Follow points through a video."""
    return parse(track, words, prog="midway track")


def track(
    video: Annotated[Path, tyro.conf.arg(metavar="VIDEO")],
    /,
    *,
    point: tuple[str, ...],
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    picture: Path | None = None,
    start_seconds: float = 0.0,
    method: tuple[Method, ...] = ("midway",),
    network: tuple[str, ...] = (SHIPPED,),
    level: int | None = None,
    fps: float = 0.0,
    short_side: int = 0,
    window: int | None = None,
    draws: int = 16,
    seed: int = 0,
    flow: FlowMethod = PIXELS,
) -> dict[str, Any]:
    """Follow points from their start to the last frame, and backward to the first.

    Args:
        video: Video file.
        point: Points X,Y in pixels of the frame at --start-seconds.
        out: Output video with the tracks drawn, one colour per point; a ring is a point that is
            probably lost.
        picture: Strip of four frames as an image, written in addition.
        start_seconds: Time of the points, in seconds after the first frame.
        method: Rule of a step, one for all networks or one for each; docs/ANALYSIS.md has a table.
        network: Run folders, files, hub ids, or names of midway list networks, shown side by side;
            Midway networks, or for --method features and chained any encoders.
        level: Level of features and heatmaps; by default the highest objective level, or the top.
        fps: Frames per second to process; 0 for all frames.
        short_side: Shorter side of the network's input in pixels; 0 for its training size.
        window: Side in pixels of the square around a point that the network sees; 0 for frames. By
            default twice the training size if that is below 128 and there is no --short-side.
        draws: Number of perturbations averaged in a heatmap.
        seed: Seed of the perturbations.
        flow: Flow estimation of --method flow.
    """
    _check(video, out, picture, fps, network)
    points, device, rows = parse_points(point), pick_device(), _rows(network, method)
    # All are opened before the first is used, so that an error comes at once.
    window = 0 if window is None and short_side else window
    opened = {row: _source(*each, flow, device, window) for row, each in rows.items()}
    options = {"level": level, "short_side": short_side}
    options |= {"num_draws": draws, "seed": seed, "dtype": fast_dtype(device)}
    with VideoFile(str(video)) as file:
        file.warn()
        frames = VideoFrames(file, fps=fps)
        starts = torch.full((len(points),), _number(frames, start_seconds))
        of = {"frames": frames, "points": points, "start_frames": starts} | options
        found = {row: track_points(**source, **of) for row, source in opened.items()}
        # A single picture needs no name.
        names = _captions(rows) if len(rows) > 1 else [""]
        _draw(frames, dict(zip(names, found.values(), strict=True)), starts, out, picture)
    through = f"{counted(len(points), 'point')} through {counted(len(frames), 'frame')}"
    say(f"{out}: {through}, by {', '.join(dict.fromkeys(method))}")
    result = {"out": str(out), "picture": picture and str(picture), "seconds": frames.seconds}
    each_track = {row: _to_json(tracks) for row, tracks in found.items()}
    return result | next(iter(each_track.values())) | {"networks": each_track}


def _rows(network: tuple[str, ...], method: tuple[Method, ...]) -> dict[str, tuple[str, Method]]:
    """Return network and method of each row of the pictures, by a name of their own."""
    number = max(len(network), len(method))
    if not {len(network), len(method)} <= {1, number}:
        raise MidwayError(
            f"--method: {len(method)} for {counted(len(network), 'network')}; give one, or one "
            "for each network"
        )
    pairs = zip(network * (number // len(network)), method * (number // len(method)), strict=True)
    several = len(set(method)) > 1
    return {f"{name}, {rule}" if several else name: (name, rule) for name, rule in pairs}


def _captions(rows: Mapping[str, tuple[str, Method]]) -> list[str]:
    short = short_names(network for network, _ in rows.values())
    return [short[network] + row.removeprefix(network) for row, (network, _) in rows.items()]


def _source(
    network: str, method: Method, flow: FlowMethod, device: torch.device, window: int | None
) -> dict[str, Any]:
    """Return the arguments of `track_points` that find points by a network, or by flow."""
    if method == "flow":
        predictor = _predictor(flow, network)
        return {"network": None, "method": method, "flow": predictor, "window": window or 0}
    found = _opened(network, method).to(device)
    window = suited_window(found) if window is None else window
    return {"network": found, "method": method, "window": window}


def _opened(network: str, method: Method) -> MidwayNetwork | Encoder:
    """Return the network, or the encoder of a source without dynamics."""
    file = read_source(network)
    if method in BY_FEATURES and (file is None or not file.has_network):
        return load_encoder(network)
    return load(network)


def _check(
    video: Path, out: Path, picture: Path | None, fps: float, network: Sequence[str]
) -> None:
    """Check inputs and outputs before anything is computed."""
    if not video.exists():
        raise MidwayError(f"{video}: no such file; check the path")
    if video.is_dir() or video.suffix.lower() in IMAGE_SUFFIXES:
        raise MidwayError(f"{video}: is not a video file; give one, made by ffmpeg for example")
    if not 0 <= fps < inf:
        raise MidwayError(f"--fps {fps:g}: give a rate, or 0 for all frames")
    if out.suffix.lower() not in WRITTEN_VIDEO_SUFFIXES:
        raise MidwayError(
            f"{out}: is not a video format; give a name like tracks.mp4, ending in "
            f"{', '.join(WRITTEN_VIDEO_SUFFIXES)}"
        )
    if not network:
        raise MidwayError("--network: no network; give one or more")
    if picture and picture.suffix.lower() not in IMAGE_SUFFIXES:
        raise MidwayError(f"{picture}: is not an image format; give a name like tracks.png")
    check_outputs([path for path in (out, picture) if path], [video])


def _predictor(flow: FlowMethod, network: str) -> Predictor:
    """Return the flow predictor; features and dynamics default to the command's network."""
    if flow.method in ("features", "dynamics"):
        flow = replace(flow, network=flow.network or network)
    return flow_predictor(flow)


def _number(frames: VideoFrames, seconds: float) -> int:
    """Return the number of the frame that is shown at a time."""
    if not 0 <= seconds <= frames.seconds[-1] + 1 / frames.fps:
        raise MidwayError(
            f"--start-seconds {seconds:g}: the last frame is at {frames.seconds[-1]:.2f} s; give "
            "a time between 0 and that"
        )
    return bisect_right(frames.seconds, seconds + ROUNDING_SECONDS) - 1


def _draw(
    frames: VideoFrames,
    tracks: Mapping[str, Tracks],
    starts: Tensor,
    out: Path,
    picture: Path | None,
) -> None:
    with writing_video(out, frames.fps) as write:
        for number in progress(range(len(frames)), "drawn frames"):
            image, seconds = frames[number].permute(1, 2, 0).numpy(), frames.seconds[number]
            write(track_frame(image, tracks, starts, number, seconds), seconds)
    if picture:
        strip = track_strip(frames, tracks, starts, frames.seconds)
        write_picture(picture, Image.fromarray(strip))


def _to_json(tracks: Tracks) -> dict[str, Any]:
    return {"points": tracks.points.tolist(), "confidence": tracks.confidence.tolist()}
