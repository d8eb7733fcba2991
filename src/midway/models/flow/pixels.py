"""Flow from pixels alone, from coarse to fine: what any network should be better than.

At each size of a pyramid the target is warped by the flow found so far, small neighbourhoods are
matched by their normalised correlation, and the flow is smoothed by a median.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.models.flow.correlation import match_maps
from midway.nn.images import warp

COARSEST_PIXELS = 24
"""The pyramid ends at this length of the shorter side."""
FINEST_PIXELS = 80_000
"""Its finest level is the first halving with no more pixels: time grows with them, and little else.
"""
RADIUS = 3
BEYOND = [RADIUS] * 4
NEIGHBOURHOOD = 5
MEDIAN = 7
PASSES = 2
TEMPERATURE = 0.02
RELUCTANCE = 0.02
FAINTEST = 0.2
"""Contrast that counts as much as all that is constant: noise in flat places is no match."""


@torch.no_grad()
def pixel_flow(
    source: Float[Tensor, "3 height width"], target: Float[Tensor, "3 height width"]
) -> Float[Tensor, "2 height width"]:
    """Flow in pixels between two frames of one size, colours in [0, 1]."""
    height, width = source.shape[1:]
    frames = torch.stack([source, target])
    flow = frames.new_zeros(1, 2, 1, 1)
    finest = 1
    while height * width / finest**2 > FINEST_PIXELS:
        finest *= 2
    factor = finest
    while min(height, width) / (2 * factor) >= COARSEST_PIXELS:
        factor *= 2
    while factor >= finest:
        size = (max(1, round(height / factor)), max(1, round(width / factor)))
        small = F.interpolate(frames, size, mode="bilinear", antialias=True)
        flow = _resized(flow, size)
        for _ in range(PASSES):
            warped, _ = warp(small[1:], flow)
            # Beyond the border its pixels go on, or flat places there would lean inwards.
            maps = [_neighbourhoods(F.pad(x, BEYOND, "replicate")) for x in (small[:1], warped)]
            step = match_maps(*maps, radius=RADIUS, temperature=TEMPERATURE, reluctance=RELUCTANCE)[
                :, :, RADIUS:-RADIUS, RADIUS:-RADIUS
            ]
            flow = _median(flow + step)
        factor //= 2
    return _resized(flow, (height, width))[0]


def _resized(flow: Tensor, size: tuple[int, int]) -> Tensor:
    scale = flow.new_tensor([size[1] / flow.shape[3], size[0] / flow.shape[2]])
    return F.interpolate(flow, size, mode="bilinear") * scale[:, None, None]


def _neighbourhoods(image: Tensor) -> Tensor:
    """Colours round each pixel, less their mean."""
    padded = F.pad(image, [NEIGHBOURHOOD // 2] * 4, mode="replicate")
    found = F.unfold(padded, NEIGHBOURHOOD).unflatten(2, image.shape[2:])
    found = found - found.mean(1, keepdim=True)
    return torch.cat([found, torch.full_like(found[:, :1], FAINTEST)], dim=1)


def _median(flow: Tensor) -> Tensor:
    """Median of each component over a square window."""
    padded = F.pad(flow, [MEDIAN // 2] * 4, mode="replicate")
    windows = F.unfold(padded, MEDIAN).unflatten(1, (2, MEDIAN**2))
    return windows.median(2).values.unflatten(2, flow.shape[2:])
