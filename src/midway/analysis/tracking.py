"""Point tracking through a video by heatmaps of the dynamics and feature similarity (fig. 7).

A point is tracked from frame to frame, from its start frame forward and backward in time. Integer
coordinates are pixel centres.
"""

from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.inputs import check_points, fit
from midway.analysis.track_steps import Draws, FlowStep, NetworkStep, Step
from midway.analysis.track_windows import WindowStep
from midway.errors import MidwayError, counted
from midway.models.encoders.base import Encoder
from midway.models.flow.correlation import feature_flow
from midway.models.flow.predictor import FloatFlow, Predictor
from midway.models.midway import MidwayNetwork
from midway.progress import progress

Method: TypeAlias = Literal["midway", "plain", "features", "chained", "heatmap", "flow"]
MATCH_RADIUS = 5
"""Search radius of flow by feature matching, in patches."""


class Frames(Protocol):
    """Indexable frames of RGB bytes (3, height, width): a tensor, or a lazy reader."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Positions of points in each frame of a video."""

    points: Float[Tensor, "points frames 2"]
    """Column x and row y in pixels."""
    confidence: Float[Tensor, "points frames"]
    """Confidence from 0 to 1, and 1 in the start frame; below 0.5 the point is likely occluded or
    lost."""


def track_points(
    network: MidwayNetwork | Encoder | None,
    frames: UInt8[Tensor, "frames 3 height width"] | Frames,
    points: Float[Tensor, "points 2"],
    start_frames: Int[Tensor, " points"],
    *,
    method: Method = "midway",
    level: int | None = None,
    short_side: int = 0,
    window: int = 0,
    flow: Predictor | None = None,
    num_draws: int = 16,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> Tracks:
    """Track points from their start frames, forward to the last and backward to the first frame.

    Methods:
    - `midway`: of the 5 patches with the highest values in the heatmap, the one most similar to the
      start (sec. 4.4 as we read it); `features`: of all patches;
    - `plain`: of the same 5, the one most similar to the current patch (sec. 4.4 to the letter), in
      whole patches; `chained`: of all patches;
    - `heatmap`: the patch with the highest value in the heatmap;
    - `flow`: the end point of optical flow from frame to frame.

    Args:
        network: Network on the device to use; an encoder suffices for `features`, `chained` and
            `flow`; None for `flow` with a predictor.
        frames: At least two frames of one size.
        points: Column x and row y in pixels of the frames.
        start_frames: Index of the start frame of each point.
        method: Tracking method.
        level: Level of features and heatmaps; if None, the highest objective level, or the top of
            an encoder alone.
        short_side: Shorter side of the network's input in pixels; 0 for the side in its
            configuration.
        window: Side in pixels of the square around a point that the network sees; 0 for frames.
        flow: Flow predictor; matching of the network's features at `level` if None.
        num_draws: K, the number of random directions of a heatmap.
        seed: Seed of the directions.
        dtype: Dtype of the heatmaps' tangents; the network's if None.

    Raises:
        MidwayError: There are fewer than two frames, the frames differ in size, a point or a start
            frame is out of range, the level has no forward model, or network or window do not fit.

    """
    _check(frames, points, start_frames)
    _check_window(window, method)
    if method == "flow" and flow is not None:
        return _follow(FlowStep(flow), frames, points, start_frames)
    if network is None:
        raise MidwayError(f"tracking by {method}: no network; give one")
    level = _top_level(network) if level is None else level
    if method == "flow":
        step = FlowStep(_matching(network, level, short_side))
        return _follow(step, frames, points, start_frames)
    draws = Draws(number=num_draws, seed=seed, dtype=dtype)
    step = NetworkStep(network, method, level=level, short_side=short_side, draws=draws)
    return _follow(WindowStep(step, window) if window else step, frames, points, start_frames)


def check_length(frames: Frames) -> None:
    """Check that there are at least two frames.

    Raises:
        MidwayError: There are fewer than two frames.

    """
    if len(frames) < 2:
        raise MidwayError(
            f"a video of {counted(len(frames), 'frame')} has no motion; give at least two frames"
        )


def _follow(step: Step[Any], frames: Frames, points: Tensor, start_frames: Tensor) -> Tracks:
    """Track points step by step in both directions; each frame is read once per direction."""
    starts, points = start_frames.cpu(), points.float().cpu()
    found = points[:, None].repeat(1, len(frames), 1)
    confidence = torch.ones(found.shape[:2])
    if not len(starts):
        return Tracks(points=found, confidence=confidence)
    first, last = int(starts.min()), int(starts.max())
    size = frames[first].shape[1:]
    # Forward from the earliest start, adding points at their start frames; then backward from the
    # latest.
    for numbers in (range(first, len(frames)), range(last, -1, -1)):
        source = None
        for number in progress(numbers, "frames") if len(numbers) > 1 else ():
            frame = frames[number]
            _check_size(frame.shape[1:], size, number)
            target = step.see(frame)
            active = starts < number if numbers.step > 0 else starts > number
            if active.any():
                before = found[active, number - numbers.step]
                after, sure = step(active.nonzero()[:, 0], before, source, target)
                inside = _clamped(after, size)
                found[active, number] = inside
                # A point that has left the image has confidence 0.
                confidence[active, number] = sure * (after == inside).all(1)
            starting = (starts == number).nonzero()[:, 0]
            step.begin(starting, points[starting], target)
            source = target
    return Tracks(points=found, confidence=confidence)


def _top_level(network: MidwayNetwork | Encoder) -> int:
    """Return the highest objective level of a network, or the top level of an encoder."""
    is_midway = isinstance(network, MidwayNetwork)
    return network.config.dynamics.levels[-1] if is_midway else network.depth


def _matching(network: MidwayNetwork | Encoder, level: int, short_side: int) -> Predictor:
    """Return a flow predictor that matches features of an encoder."""
    encoder = network.encoder if isinstance(network, MidwayNetwork) else network

    def predict(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> FloatFlow:
        both = torch.from_numpy(np.stack([source, target])).permute(0, 3, 1, 2)
        fitted = fit(both, encoder, short_side=short_side)
        with torch.no_grad():
            found = feature_flow(encoder, *fitted.images.split(1), level=level, radius=MATCH_RADIUS)
        # The flow is in pixels of the network's input; scale it to pixels of the frames.
        scale = np.array(fitted.patch) / encoder.stride
        found = F.interpolate(found.float(), source.shape[:2], mode="bilinear")[0]
        return (found.permute(1, 2, 0).cpu().numpy() * scale).astype(np.float32)

    return predict


def _clamped(points: Tensor, size: torch.Size) -> Tensor:
    """Clamp points to the image of this height and width."""
    last = points.new_tensor([size[1] - 1, size[0] - 1])
    return torch.minimum(points.clamp(min=0), last)


def _check_window(window: int, method: Method) -> None:
    if window < 0:
        raise MidwayError(f"window of {window} pixels: give 1 or more, or 0 for whole frames")
    if window and method == "flow":
        raise MidwayError(
            f"window of {window} pixels: tracking by flow has none; leave it out, or track by "
            "another method"
        )


def _check_size(found: torch.Size, size: torch.Size, number: int) -> None:
    if found != size:
        raise MidwayError(
            f"frames differ in size: frame {number} has {found[1]} x {found[0]} pixels, others "
            f"{size[1]} x {size[0]}; give frames of one size"
        )


def _check(frames: Frames, points: Tensor, start_frames: Tensor) -> None:
    check_length(frames)
    for number in start_frames.tolist():
        if not 0 <= number < len(frames):
            raise MidwayError(
                f"start frame {number}: is not in the video; choose from 0 to {len(frames) - 1}"
            )
    if len(points):
        check_points(points, frames[int(start_frames.min())].shape[1:])
