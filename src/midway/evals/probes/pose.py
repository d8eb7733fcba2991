"""Linear probe of camera motion on one video, with contiguous parts and a block bootstrap.

The frames are split into contiguous parts. The pairs within a part are predicted by ridge
regression from the pairs outside it, so that every part is tested once. Each component of the pose
has its own penalty, selected by leaving out one of the other parts at a time.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.evals.metrics.bootstrap import estimate
from midway.evals.probes.motion import STRENGTHS, ridge_path
from midway.models.midway import MidwayNetwork

CELLS = 4
"""Side of the grid of averaged features."""
BATCH = 32
"""Pairs or frames per forward pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class VideoPairs:
    """Pairs of frames of one video, split into contiguous parts."""

    first: Tensor
    """Number of the first frame of each pair, shape (N,)."""
    second: Tensor
    """Number of the second frame of each pair, shape (N,)."""
    part_of: Tensor
    """Part of each frame, in ascending order, shape (frames,)."""

    @classmethod
    def neighbours(
        cls, num_frames: int, *, gap: int, num_parts: int, reversed_too: bool
    ) -> "VideoPairs":
        """Return all pairs of frames `gap` apart.

        Args:
            num_frames: Frames of the video.
            gap: Distance of the frames of a pair, in frames.
            num_parts: Number of parts of nearly equal length.
            reversed_too: If True, add each pair in reversed order.

        Raises:
            MidwayError: A part is too short for a pair.

        """
        if num_frames // num_parts <= gap:
            raise MidwayError(
                f"pose probe: {num_frames} frames in {num_parts} parts leave no pair {gap} frames "
                "apart in a part; give a longer video, fewer parts or a smaller gap"
            )
        start = torch.arange(num_frames - gap)
        first, second = (start, start + gap)
        if reversed_too:
            first, second = torch.cat([first, second]), torch.cat([second, first])
        part_of = torch.arange(num_frames) * num_parts // num_frames
        return cls(first=first, second=second, part_of=part_of)

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.first)

    @property
    def parts(self) -> tuple[Tensor, Tensor]:
        """Part of the first and of the second frame of each pair."""
        return self.part_of[self.first], self.part_of[self.second]

    @property
    def is_tested(self) -> Tensor:
        """True for the pairs within a part, shape (N,)."""
        first, second = self.parts
        return first == second


def cross_predicted(features: Tensor, motion: Tensor, pairs: VideoPairs) -> Tensor:
    """Predict the motion of each pair within a part, by probes fitted outside that part.

    Args:
        features: Inputs of shape (N, dim), float64.
        motion: Targets of shape (N, components), float64.
        pairs: Pairs of a video, in at least three parts.

    Returns:
        Predictions (N, components); NaN for pairs across parts.

    """
    found = torch.full_like(motion, torch.nan)
    for part in pairs.part_of.unique():
        tested, outside = _split(pairs, part)
        candidates = torch.stack(
            [probe(features[tested]) for probe in ridge_path(features[outside], motion[outside])]
        )  # (penalties, pairs, components)
        chosen = _penalties(features, motion, pairs, part)
        found[tested] = candidates[chosen, :, torch.arange(motion.shape[1])].T
    return found


def mean_predicted(motion: Tensor, pairs: VideoPairs) -> Tensor:
    """Predict the mean motion of the pairs outside a part; shapes as for `cross_predicted`."""
    found = torch.full_like(motion, torch.nan)
    for part in pairs.part_of.unique():
        tested, outside = _split(pairs, part)
        found[tested] = motion[outside].mean(0)
    return found


def _penalties(features: Tensor, motion: Tensor, pairs: VideoPairs, part: Tensor) -> Tensor:
    """Return the index of each component's best penalty on the other parts, (components,)."""
    errors = torch.zeros(len(STRENGTHS), motion.shape[1], dtype=motion.dtype)
    _, outside = _split(pairs, part)
    for other in pairs.part_of.unique():
        if other == part:
            continue
        held_out, rest = _split(pairs, other)
        train = rest & outside
        for row, probe in zip(errors, ridge_path(features[train], motion[train]), strict=True):
            row += (probe(features[held_out]) - motion[held_out]).square().sum(0)
    return errors.argmin(0)


def _split(pairs: VideoPairs, part: Tensor) -> tuple[Tensor, Tensor]:
    """Return masks of the pairs within a part, and of those that do not touch or span it."""
    first, second = pairs.parts
    before = (first < part) & (second < part)
    after = (first > part) & (second > part)
    return (first == part) & (second == part), before | after


def error_ratio(
    errors: Tensor, baseline: Tensor, frames: Tensor, *, block: int
) -> tuple[float, tuple[float, float]]:
    """Return the ratio of two root mean square errors, and its 95 % interval.

    The interval comes from a bootstrap over blocks of frames: neighbouring pairs share frames and
    speed, so they are drawn together.

    Args:
        errors: Squared errors of the pairs, shape (N,).
        baseline: Squared errors of the baseline, shape (N,).
        frames: Earlier frame of each pair, shape (N,).
        block: Frames of a block.

    """
    rows = [
        ([errors[chosen].sum().item()], [baseline[chosen].sum().item()])
        for chosen in (frames // block == number for number in (frames // block).unique())
    ]
    # A share of the squared error; roots keep the order of the bounds.
    found = estimate([rows])
    return found.mean**0.5, (found.low**0.5, found.high**0.5)


@torch.no_grad()
def pair_latents(network: MidwayNetwork, images: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the motion latents of all levels, float64 of shape (pairs, levels * latents * dim).

    Args:
        network: Network in evaluation mode, with motion latents.
        images: ImageNet-normalised frames (frames, 3, height, width).
        first: Number of the source of each pair.
        second: Number of the target of each pair.

    """
    found = []
    for batch in zip(first.split(BATCH), second.split(BATCH), strict=True):
        outputs = network(*(images[numbers] for numbers in batch)).levels.values()
        found.append(torch.cat([output.motion_latents.flatten(1) for output in outputs], dim=1))
    return torch.cat(found).double().cpu()


@torch.no_grad()
def pooled_features(network: MidwayNetwork, images: Tensor) -> Tensor:
    """Return the top features averaged over cells, float64 of shape (frames, cells * dim)."""
    maps = [network.encoder.maps(part, [-1])[0] for part in images.split(BATCH)]
    pooled = [F.adaptive_avg_pool2d(each, CELLS).flatten(1) for each in maps]
    return torch.cat(pooled).double().cpu()
