"""Optical flow of two RGB images by any method, behind one interface."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.encoders.base import Encoder
from midway.models.flow.base import FlowModule
from midway.models.flow.correlation import Average, dynamics_flow, feature_flow
from midway.models.flow.explained import best_explained
from midway.models.flow.network import load_flow_network
from midway.models.flow.pixels import pixel_flow
from midway.models.flow.tiles import TileConfig, predict_tiled
from midway.models.weights.load import load, network_config
from midway.models.weights.sources import load_encoder, read_source
from midway.nn.device import pick_device
from midway.nn.images import normalise, resized_flow

FloatFlow: TypeAlias = NDArray[np.float32]
"""Flow in memory, shape (height, width, 2): u to the right and v down, in pixels."""
ENCODER_LEVEL = 3
"""Default level of an encoder without dynamics, as the lowest level of the paper's networks."""
Method: TypeAlias = Literal["zero", "pixels", "features", "dynamics", "finetuned"]
Predictor: TypeAlias = Callable[[NDArray[np.uint8], NDArray[np.uint8]], FloatFlow]
"""Function from two RGB images (height, width, 3) to flow (height, width, 2) in pixels."""
Match: TypeAlias = Callable[[Tensor, Tensor], Tensor]
"""Function from two batches of ImageNet-normalised frames to flow in pixels, by matching."""


@dataclass(frozen=True, kw_only=True)
class FlowMethod:
    """Method of optical flow and its options."""

    method: Method = "finetuned"
    """No motion; matching of pixels, of features or of the dynamics' prediction; or a finetuned
    flow network."""
    network: str = ""
    """Network, needed by all methods but zero and pixels: for finetuned, its folder or file; for
    dynamics, a Midway network by any of its names; for features, also any encoder, such as
    timm:NAME."""
    overlap: float = 0.9
    """Fraction of a tile that the next one overlaps (finetuned, and matching with a short side)."""
    tiles_at_once: int = 8
    """Batch size in tiles (finetuned, and matching with a short side)."""
    level: int | None = None
    """Encoder level to match (features, dynamics); by default the lowest that the dynamics predict,
    or the third of an encoder without dynamics."""
    radius: int = 5
    """Search radius in patches (features, dynamics)."""
    short_side: tuple[int, ...] = ()
    """Shorter sides in pixels to which frames are resized before matching, in overlapping tiles of
    the network's training size; more if a tile is larger. Of several sides, each pixel takes the
    flow that explains the images best, or no motion. By default, whole frames are matched as they
    are (features, dynamics)."""
    average: Average = "peak"
    """Displacements that are averaged: those near the best match, or all in the window, with a
    penalty on large ones, so that uncertain flow shrinks to zero (features, dynamics)."""

    def __post_init__(self) -> None:
        if self.short_side and min(self.short_side) < 1:
            raise MidwayError(
                f"short side of {min(self.short_side)} pixels: give 1 or more, or leave it out for "
                "whole frames"
            )
        if len(set(self.short_side)) < len(self.short_side):
            sides = " ".join(map(str, self.short_side))
            raise MidwayError(f"short sides {sides}: one is given twice; give each once")
        if self.radius < 1:
            raise MidwayError(f"radius {self.radius}: too small; give 1 patch or more")

    def settings(self) -> dict[str, float | str | list[int] | None]:
        """Return the options that affect the flow of a given network.

        The level is that of `with_level`.
        """
        if self.method == "finetuned":
            return {"overlap": self.overlap}
        if self.method in ("features", "dynamics"):
            options: dict[str, float | str | list[int] | None] = {
                "level": self.level,
                "radius": self.radius,
            }
            # With their defaults, later options do not change the version hash of results.
            if self.short_side:
                sides = sorted(self.short_side)
                side = sides if len(sides) > 1 else sides[0]
                options |= {"short_side": side, "overlap": self.overlap}
            if self.average != "peak":
                options |= {"average": self.average}
            return options
        return {}


def flow_predictor(how: FlowMethod) -> Predictor:
    """Return the predictor of a method, on a GPU if there is one.

    Raises:
        MidwayError: The method needs a network and none is given, the method takes no network, or
            the network cannot be read.
    """
    if how.network and how.method in ("zero", "pixels"):
        raise MidwayError(
            f"method {how.method}: takes no network; leave --network out, or add --method "
            "finetuned, features or dynamics"
        )
    if how.short_side and how.method not in ("features", "dynamics"):
        raise MidwayError(
            f"short side {' '.join(map(str, how.short_side))}: method {how.method} matches no "
            "tiles; leave it out, or add --method features or dynamics"
        )
    if how.average != "peak" and how.method not in ("features", "dynamics"):
        raise MidwayError(
            f"average {how.average}: method {how.method} averages no matches; leave it out, or add "
            "--method features or dynamics"
        )
    if not how.network and how.method not in ("zero", "pixels"):
        raise MidwayError(f"method {how.method}: no network; give --network FOLDER or FILE")
    device, how = pick_device(), with_level(how)
    if how.method == "zero":
        return lambda source, target: np.zeros((*source.shape[:2], 2), np.float32)
    if how.method == "pixels":
        return lambda source, target: _array(pixel_flow(*_frames(source, target, device)))
    if how.method == "finetuned":
        return network_predictor(
            load_flow_network(how.network).to(device),
            overlap=how.overlap,
            tiles_at_once=how.tiles_at_once,
        )
    assert how.level is not None, "set by with_level"
    find = {"level": how.level, "radius": how.radius, "average": how.average}
    if how.method == "dynamics":
        network = load(how.network).to(device)
        return _matching_predictor(network.encoder, partial(dynamics_flow, network, **find), how)
    # The student's, as in `dynamics_flow`, so that both methods match the same features.
    encoder = load_encoder(how.network, weights="student").to(device)
    return _matching_predictor(encoder, partial(feature_flow, encoder, **find), how)


def with_level(how: FlowMethod) -> FlowMethod:
    """Return the method with the default level of its network, unless it has a level or needs none.

    Raises:
        MidwayError: The network cannot be read.

    """
    if how.level is not None or not how.network or how.method not in ("features", "dynamics"):
        return how
    file = read_source(str(how.network))
    if file is not None and file.has_network:
        level = network_config(file).dynamics.levels[0]
    else:
        level = min(ENCODER_LEVEL, load_encoder(str(how.network), weights="student").depth)
    return replace(how, level=level)


def network_predictor(network: FlowModule, *, overlap: float, tiles_at_once: int) -> Predictor:
    """Return the predictor of a flow network in evaluation mode, in tiles of its training crop."""
    device = next(network.parameters()).device
    tiles = TileConfig(size=network.config.crop, overlap=overlap, batch_size=tiles_at_once)

    def predict(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> FloatFlow:
        first, second = normalise(_frames(source, target, device))
        return _array(predict_tiled(network, first, second, tiles))

    return predict


def _matching_predictor(encoder: Encoder, find: Match, how: FlowMethod) -> Predictor:
    """Return a predictor that resizes frames to whole patches or for tiles, and their flow back."""
    device = next(encoder.parameters()).device

    @torch.no_grad()
    def predict(source: NDArray[np.uint8], target: NDArray[np.uint8]) -> FloatFlow:
        frames = _frames(source, target, device)
        if not how.short_side:
            return _array(_matched_whole(encoder, find, frames)[0])
        flows = (_matched_in_tiles(encoder, find, how, side, frames) for side in how.short_side)
        if len(how.short_side) == 1:
            return _array(next(flows)[0])
        return _array(best_explained(frames[:1], frames[1:], flows)[0])

    return predict


def _matched_whole(encoder: Encoder, find: Match, frames: Tensor) -> Tensor:
    """Return the flow of whole frames, (1, 2, height, width)."""
    height, width = frames.shape[2:]
    # The nearest multiple of the stride, so that the frames are hardly distorted.
    size = [max(1, round(side / encoder.stride)) * encoder.stride for side in (height, width)]
    flow = find(*normalise(F.interpolate(frames, size, mode="bilinear")).split(1))
    return resized_flow(flow, (height, width))


def _matched_in_tiles(
    encoder: Encoder, find: Match, how: FlowMethod, short_side: int, frames: Tensor
) -> Tensor:
    """Return the flow of frames that are matched at one resolution, (1, 2, height, width)."""
    stride = encoder.stride
    rows, columns = (max(1, side // stride) * stride for side in encoder.image_size)
    tiles = TileConfig(size=(rows, columns), overlap=how.overlap, batch_size=how.tiles_at_once)
    height, width = frames.shape[2:]
    factor = max(short_side / min(height, width), rows / height, columns / width)
    size = (max(rows, round(height * factor)), max(columns, round(width * factor)))
    first, second = normalise(F.interpolate(frames, size, mode="bilinear", antialias=True))
    flow = predict_tiled(partial(_certain, find), first, second, tiles)[None]
    return resized_flow(flow, (height, width))


def _certain(find: Match, source: Tensor, target: Tensor) -> Tensor:
    """Return flow with an uncertainty of zero, (batch, 3, height, width): tiles weigh the same."""
    return F.pad(find(source, target), (0, 0, 0, 0, 0, 1))


def _frames(source: NDArray[np.uint8], target: NDArray[np.uint8], device: torch.device) -> Tensor:
    """Stack both images as floats in [0, 1], shape (2, 3, height, width)."""
    if source.shape != target.shape:
        raise MidwayError(
            f"frames differ in size: {source.shape[0]}x{source.shape[1]} and "
            f"{target.shape[0]}x{target.shape[1]} pixels; give two of one size"
        )
    return torch.from_numpy(np.stack([source, target])).to(device).permute(0, 3, 1, 2) / 255


def _array(flow: Tensor) -> FloatFlow:
    # (2, height, width) -> (height, width, 2)
    return np.ascontiguousarray(flow.permute(1, 2, 0).float().cpu().numpy())
