"""Optical flow that a method takes from outside: RAFT, matching of pixels, or recorded flow.

A source of flow is frozen and no part of the method: its weights are in no checkpoint of a run.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.config import require
from midway.models.flow.pixels import pixel_flow
from midway.models.flow.raft import Raft
from midway.models.flow.raft_weights import load_raft

Frames = Float[Tensor, "2 batch 3 height width"]
BothWays = Float[Tensor, "2 batch 2 height width"]
"""Flow in pixels: from the first to the second frame, then back. Not finite where unknown."""
UNKNOWN_PIXELS = 1e4
"""Longer recorded flow is unknown; files of signals contain finite numbers only."""
SAME_SECONDS = 0.01
"""Largest difference between the time of two frames and the time that recorded flow spans."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Source of optical flow."""

    source: Literal["raft", "pixels", "recorded", "none"] = "raft"
    """RAFT; matching of small windows, without a network; flow recorded beside the clips as the
    signal "flow"; or no motion, for comparison."""
    weights: str = ""
    """File of RAFT's weights: raft-things.pth or torchvision's raft_large."""
    iterations: int = 24
    """Refinements of RAFT."""
    batch_statistics: bool = False
    """If True, RAFT's batch norms normalise by the batch, as in PooDLe's code, which puts the
    frozen network into training mode."""
    recorded_size: tuple[int, int] = (96, 128)
    """Height and width of recorded flow."""

    def __post_init__(self) -> None:
        rules = {
            f"iterations = {self.iterations}; give 1 or more": self.iterations >= 1,
            f"recorded_size = {self.recorded_size}; give two sides of 1 or more": (
                min(self.recorded_size) >= 1
            ),
            f"weights = {self.weights}: only RAFT has weights; leave it out": (
                not self.weights or self.source == "raft"
            ),
        }
        require("flow", rules)

    @property
    def signals(self) -> dict[str, tuple[int, ...]]:
        """Shape of the recorded signals that the source reads at each frame."""
        if self.source != "recorded":
            return {}
        # Flow to the next frame, then to the previous one: x and y each.
        return {"flow": (2, 2, *self.recorded_size), "flow_seconds": ()}


class ExternalFlow(ABC):
    """Source of flow between the two frames of each clip."""

    @abstractmethod
    def __call__(
        self, frames: Frames, *, seconds: Tensor, signals: Mapping[str, Tensor]
    ) -> BothWays:
        """Return the flow of a batch, without gradient.

        Args:
            frames: Colours in [0, 1], without augmentation.
            seconds: Time of each frame, shape (2, batch).
            signals: Recorded signals, shape (2, batch, ...).

        """


def external_flow(config: FlowConfig) -> ExternalFlow:
    """Build a source of flow.

    Raises:
        MidwayError: No file of weights is given, or it is missing, or none of RAFT.

    """
    if config.source == "raft":
        return RaftFlow(config)
    return {"pixels": PixelFlow, "recorded": RecordedFlow, "none": NoFlow}[config.source]()


class RaftFlow(ExternalFlow):
    """Flow by RAFT, in full precision."""

    def __init__(self, config: FlowConfig) -> None:
        # The FLOP counter builds methods on the meta device, where no weights are needed.
        if torch.empty(0).is_meta:
            self.network = Raft(iterations=config.iterations)
        else:
            require(
                "flow",
                {
                    "weights is empty; give raft-things.pth, see docs/methods/poodle.md": bool(
                        config.weights
                    )
                },
            )
            self.network = load_raft(config.weights, iterations=config.iterations)
        self.network.train(config.batch_statistics)

    @torch.no_grad()
    def __call__(
        self, frames: Frames, *, seconds: Tensor, signals: Mapping[str, Tensor]
    ) -> BothWays:
        """Return the flow; the network moves to the device of the frames."""
        device = frames.device
        network = self.network.to(device)
        # Flow in bfloat16 would be off by pixels; the meta device has no autocast to disable.
        with nullcontext() if frames.is_meta else torch.autocast(device.type, enabled=False):
            return torch.stack(network.both_ways(*(2 * frames.float() - 1)))


class PixelFlow(ExternalFlow):
    """Flow by matching of small windows, at half the resolution: four times as fast."""

    @torch.no_grad()
    def __call__(
        self, frames: Frames, *, seconds: Tensor, signals: Mapping[str, Tensor]
    ) -> BothWays:
        """Return the flow."""
        batch, (height, width) = frames.shape[1], frames.shape[-2:]
        half = (max(1, height // 2), max(1, width // 2))
        small = F.interpolate(frames.flatten(0, 1), half, mode="bilinear", antialias=True)
        coarse = pixel_flow(small, small.roll(batch, 0))  # (2 * batch, 2, *half)
        scale = coarse.new_tensor([width / half[1], height / half[0]])[:, None, None]
        fine = F.interpolate(coarse, (height, width), mode="bilinear") * scale
        return fine.unflatten(0, (2, batch))


class RecordedFlow(ExternalFlow):
    """Flow of the signals "flow" and "flow_seconds", for views that show whole frames."""

    @torch.no_grad()
    def __call__(
        self, frames: Frames, *, seconds: Tensor, signals: Mapping[str, Tensor]
    ) -> BothWays:
        """Return the flow, scaled to the frames; unknown where it spans another time."""
        recorded = signals["flow"]  # (frame, batch, direction, 2, rows, columns)
        flow = torch.stack([recorded[0, :, 0], recorded[1, :, 1]])
        spans = signals["flow_seconds"]  # (frame, batch)
        is_right = ((seconds[1] - seconds[0]) - spans).abs() < SAME_SECONDS
        height, width = frames.shape[-2:]
        scale = flow.new_tensor([width / flow.shape[-1], height / flow.shape[-2]])[:, None, None]
        # An unknown vector also makes those unknown that are interpolated from it.
        fine = F.interpolate(flow.flatten(0, 1), (height, width), mode="bilinear").view(
            2, -1, 2, height, width
        )
        is_known = (fine.abs() < UNKNOWN_PIXELS).all(2, keepdim=True)
        is_known = is_known & is_right[:, :, None, None, None]
        return torch.where(is_known, fine * scale, torch.inf)


class NoFlow(ExternalFlow):
    """No motion between any two frames."""

    def __call__(
        self, frames: Frames, *, seconds: Tensor, signals: Mapping[str, Tensor]
    ) -> BothWays:
        """Return zeros."""
        return torch.zeros_like(frames[:, :, :2])
