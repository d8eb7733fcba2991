"""Choice between candidate flows by the images alone.

The target warped by a wrong flow differs in colour from the source. No motion competes too, so that
flow stays zero where no candidate explains the images better.
"""

from collections.abc import Iterable

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.nn.images import warp

# WINDOW and MARGIN had the lowest EPE on FlyingChairs (docs/experiments/motion.md).
WINDOW = 31
"""Side in pixels of the window over which differences are averaged."""
MARGIN = 1.1
"""Ratio by which a flow must explain the images better than no motion."""
OUTSIDE = 0.25
"""Difference of a pixel whose flow leaves the target; colours are from 0 to 1."""

Frames = Float[Tensor, "batch 3 height width"]
Flow = Float[Tensor, "batch 2 height width"]


@torch.no_grad()
def best_explained(source: Frames, target: Frames, flows: Iterable[Flow]) -> Flow:
    """Return, for each pixel, the flow that explains its neighbourhood best, or no motion.

    Args:
        source: Colours in [0, 1].
        target: Colours in [0, 1], of the same size.
        flows: Candidates in pixels, finite.

    """
    best = source.new_zeros(len(source), 2, *source.shape[2:])
    least = _difference(source, target, best) / MARGIN
    for flow in flows:
        difference = _difference(source, target, flow)
        best = torch.where(difference < least, flow, best)
        least = torch.minimum(difference, least)
    return best


def _difference(source: Tensor, target: Tensor, flow: Tensor) -> Tensor:
    """Return the mean difference in colour between neighbourhoods, (batch, 1, height, width)."""
    warped, inside = warp(target, flow)
    difference = (warped - source).abs().mean(1, keepdim=True)
    difference = torch.where(inside[:, None], difference, OUTSIDE)
    return F.avg_pool2d(difference, WINDOW, 1, WINDOW // 2, count_include_pad=False)
