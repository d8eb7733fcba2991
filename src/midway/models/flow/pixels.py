"""Coarse-to-fine optical flow from pixels: a baseline that any network should exceed.

At each level of an image pyramid, the target is warped by the current flow, small neighbourhoods
are matched by their normalised correlation, and the flow is smoothed by a median filter.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.models.flow.correlation import match_maps
from midway.nn.images import resized_flow, warp

COARSEST_PIXELS = 24
"""Smallest length of the shorter side in the pyramid."""
FINEST_PIXELS = 80_000
"""Largest number of pixels in the pyramid: more cost time but hardly improve the flow."""
RADIUS = 3
"""Search radius at each level, in pixels of that level."""
BEYOND = [RADIUS] * 4
"""Padding before matching."""
NEIGHBOURHOOD = 5
"""Side of the matched neighbourhoods."""
MEDIAN = 7
"""Side of the median filter."""
PASSES = 2
"""Warping and matching passes per level."""
TEMPERATURE = 0.02
RELUCTANCE = 0.02
FAINTEST = 0.2
"""Constant extra channel of each neighbourhood: regions of less contrast count as alike."""


@torch.no_grad()
def pixel_flow(
    source: Float[Tensor, "*batch 3 height width"], target: Float[Tensor, "*batch 3 height width"]
) -> Float[Tensor, "*batch 2 height width"]:
    """Return flow in pixels between frames of one size, colours in [0, 1]."""
    *leading, _, height, width = source.shape
    # The sources come first: (2 * batch, 3, height, width).
    frames = torch.stack([source, target]).reshape(-1, 3, height, width)
    flow = frames.new_zeros(len(frames) // 2, 2, 1, 1)
    # Halve the frames until they are small enough, then until the pyramid ends.
    finest = 1
    while height * width / finest**2 > FINEST_PIXELS:
        finest *= 2
    factor = finest
    while min(height, width) / (2 * factor) >= COARSEST_PIXELS:
        factor *= 2
    while factor >= finest:
        size = (max(1, round(height / factor)), max(1, round(width / factor)))
        small = F.interpolate(frames, size, mode="bilinear", antialias=True)
        flow = resized_flow(flow, size)  # (batch, 2, *size), in pixels of this level
        for _ in range(PASSES):
            first, second = small.chunk(2)
            warped, _ = warp(second, flow)
            # Border pixels are replicated: else flow of flat regions at the border points inwards.
            maps = [_neighbourhoods(F.pad(x, BEYOND, "replicate")) for x in (first, warped)]
            step = match_maps(*maps, radius=RADIUS, temperature=TEMPERATURE, reluctance=RELUCTANCE)[
                :, :, RADIUS:-RADIUS, RADIUS:-RADIUS
            ]
            flow = _median(flow + step)
        factor //= 2
    return resized_flow(flow, (height, width)).reshape(*leading, 2, height, width)


def _neighbourhoods(image: Tensor) -> Tensor:
    """Return the colours of the neighbourhood of each pixel, minus their mean."""
    padded = F.pad(image, [NEIGHBOURHOOD // 2] * 4, mode="replicate")
    # (batch, 3 * NEIGHBOURHOOD^2, height, width)
    found = F.unfold(padded, NEIGHBOURHOOD).unflatten(2, image.shape[2:])
    found = found - found.mean(1, keepdim=True)
    return torch.cat([found, torch.full_like(found[:, :1], FAINTEST)], dim=1)


def _median(flow: Tensor) -> Tensor:
    """Return the median of each component over a square window."""
    padded = F.pad(flow, [MEDIAN // 2] * 4, mode="replicate")
    windows = F.unfold(padded, MEDIAN).unflatten(1, (2, MEDIAN**2))
    return windows.median(2).values.unflatten(2, flow.shape[2:])
