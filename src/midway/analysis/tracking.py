"""Tracks of points through a video, by what the dynamics carry on and by what looks alike (fig. 7).

A point is followed from each frame to the next, away from its start in both directions of time.
Whole numbers are the middles of pixels.
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
from midway.errors import MidwayError
from midway.models.flow.correlation import feature_flow
from midway.models.flow.predictor import FloatFlow, Predictor
from midway.models.midway import MidwayNetwork

Method: TypeAlias = Literal["midway", "features", "heatmap", "flow"]
MATCH_RADIUS = 5
"""How far flow by matching looks, in patches."""


class Frames(Protocol):
    """RGB bytes (3, height, width) of frames by number: a tensor of all, or what reads them."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Tensor: ...


@dataclass(frozen=True, kw_only=True)
class Tracks:
    """Where points are in each frame of a video."""

    points: Float[Tensor, "points frames 2"]
    """Column x and row y in pixels."""
    confidence: Float[Tensor, "points frames"]
    """From 0 to 1, and 1 at the start; below one half the point is likely hidden or lost."""


def track_points(
    network: MidwayNetwork | None,
    frames: UInt8[Tensor, "frames 3 height width"] | Frames,
    points: Float[Tensor, "points 2"],
    start_frames: Int[Tensor, " points"],
    *,
    method: Method = "midway",
    level: int | None = None,
    short_side: int = 0,
    flow: Predictor | None = None,
    num_draws: int = 16,
    seed: int = 0,
    dtype: torch.dtype | None = None,
) -> Tracks:
    """Follow points from where they start, forward to the last frame and back to the first.

    By `midway`, the paper's rule (sec. 4.4): of the 5 patches of the next frame at which the
    heatmap of the point's patch is hottest, the one that looks most like the start. By `features`,
    the patch of the whole frame that does. By `heatmap`, the hottest one. By `flow`, where the flow
    from frame to frame leads.

    Args:
        network: On the device that is to do it; None will do for flow by a predictor.
        frames: At least two.
        points: Column x and row y in pixels of the frames.
        start_frames: Number of the frame that each of them is given in.
        method: How a step is made.
        level: Of features and heatmaps; the highest objective level if None.
        short_side: Pixels of the frames' shorter side as the network sees it; 0 for the side that
            it is made for.
        flow: Finds flow; matching of the network's features at `level` if None.
        num_draws: K, the draws of a heatmap.
        seed: Of the draws.
        dtype: Of the tangents that heatmaps are made of; the network's if None.

    Raises:
        MidwayError: Fewer than two frames, frames of different size, a point or a start outside
            them, a level without forward model, or no network where one is needed.

    """
    _check(frames, points, start_frames)
    if method == "flow" and flow is not None:
        return _follow(FlowStep(flow), frames, points, start_frames)
    if network is None:
        raise MidwayError(f"tracking by {method}: no network; give one")
    level = network.config.dynamics.levels[-1] if level is None else level
    if method == "flow":
        step = FlowStep(_matching(network, level, short_side))
        return _follow(step, frames, points, start_frames)
    step = NetworkStep(
        network,
        method,
        level=level,
        short_side=short_side,
        draws=Draws(number=num_draws, seed=seed, dtype=dtype),
    )
    return _follow(step, frames, points, start_frames)


def check_length(frames: Frames) -> None:
    """See that there are frames to move between.

    Raises:
        MidwayError: There are fewer than two.

    """
    if len(frames) < 2:
        raise MidwayError(f"a video of {len(frames)} frame has no motion; give at least two frames")


def _follow(step: Step[Any], frames: Frames, points: Tensor, start_frames: Tensor) -> Tracks:
    starts, points = start_frames.cpu(), points.float().cpu()
    found = points[:, None].repeat(1, len(frames), 1)
    confidence = torch.ones(found.shape[:2])
    if not len(starts):
        return Tracks(points=found, confidence=confidence)
    first, last = int(starts.min()), int(starts.max())
    size = frames[first].shape[1:]
    # Forward from the first start, where all points begin on the way; then back from the last.
    for numbers in (range(first, len(frames)), range(last, -1, -1)):
        source = None
        for number in numbers if len(numbers) > 1 else ():
            frame = frames[number]
            _check_size(frame.shape[1:], size, number)
            target = step.see(frame)
            under_way = starts < number if numbers.step > 0 else starts > number
            if under_way.any():
                before = found[under_way, number - numbers.step]
                after, sure = step(under_way.nonzero()[:, 0], before, source, target)
                inside = _clamped(after, size)
                found[under_way, number] = inside
                confidence[under_way, number] = sure * (after == inside).all(1)
            beginning = (starts == number).nonzero()[:, 0]
            step.begin(beginning, points[beginning], target)
            source = target
    return Tracks(points=found, confidence=confidence)


def _matching(network: MidwayNetwork, level: int, short_side: int) -> Predictor:
    def predict(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> FloatFlow:
        both = torch.from_numpy(np.stack([source, target])).permute(0, 3, 1, 2)
        fitted = fit(both, network, short_side=short_side)
        with torch.no_grad():
            found = feature_flow(
                network.encoder, *fitted.images.split(1), level=level, radius=MATCH_RADIUS
            )
        scale = np.array(fitted.patch) / network.encoder.stride
        found = F.interpolate(found.float(), source.shape[:2], mode="bilinear")[0]
        return (found.permute(1, 2, 0).cpu().numpy() * scale).astype(np.float32)

    return predict


def _clamped(points: Tensor, size: torch.Size) -> Tensor:
    """Points, those outside the image of this height and width at its border."""
    last = points.new_tensor([size[1] - 1, size[0] - 1])
    return torch.minimum(points.clamp(min=0), last)


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
                f"start frame {number} is not in the video; choose from 0 to {len(frames) - 1}"
            )
    if len(points):
        check_points(points, frames[int(start_frames.min())].shape[1:])
