"""Flow without training: where frozen features of the source are found again in the target.

For each patch the correlation with the patches round it is turned into a place by a soft-argmax
close to its peak, so that flow is finer than the grid.
"""

from itertools import product
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.dpt import to_map
from midway.models.midway import MidwayNetwork

TEMPERATURE = 0.03
"""Of the softmax over cosines."""
PEAK_RADIUS = 1.5
"""Cells round the best one that share in the soft-argmax: a further peak is another match."""


@torch.no_grad()
def match_maps(
    source: Float[Tensor, "batch dim rows columns"],
    target: Float[Tensor, "batch dim rows columns"],
    *,
    radius: int,
    temperature: float = TEMPERATURE,
    reluctance: float = 0.0,
) -> Float[Tensor, "batch 2 rows columns"]:
    """Displacement, in cells (right, down), to what looks alike in the target.

    Args:
        source: Features; their length does not matter.
        target: Likewise.
        radius: How far to look, in cells along each axis.
        temperature: Of the softmax over cosines near the best one.
        reluctance: What a cosine loses for each cell of displacement: decides between equals.
    """
    steps = torch.arange(-radius, radius + 1, device=source.device)
    offsets = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1)
    offsets = offsets.to(source.dtype)
    cosines = _cosines(F.normalize(source, dim=1), F.normalize(target, dim=1), radius)
    cosines = cosines - reluctance * offsets.norm(dim=1)[:, None, None]
    best = offsets[cosines.argmax(1)].permute(0, 3, 1, 2)  # (batch, 2, rows, columns)
    flow, total = torch.zeros_like(best), cosines.new_zeros(())
    highest = cosines.amax(1)
    for (u, v), cosine in zip(offsets.tolist(), cosines.unbind(1), strict=True):
        is_near = (best - best.new_tensor([u, v])[:, None, None]).abs().amax(1) < PEAK_RADIUS
        weight = ((cosine - highest) / temperature).exp() * is_near
        flow += weight[:, None] * flow.new_tensor([u, v])[:, None, None]
        total = total + weight
    return flow / total[:, None]


def _cosines(source: Tensor, target: Tensor, radius: int) -> Tensor:
    """Products of each cell with those round it, (batch, offsets, rows, columns), by rows.

    One offset at a time, for the memory of all at once would be many times that of the features;
    and always in the same memory, for between results that stay the allocator would not put a
    second product where the first one was: the heap would grow by nearly all of them.
    """
    rows, columns = source.shape[2:]
    padded = F.pad(target, [radius] * 4)
    inside = F.pad(torch.ones_like(target[:1, 0]), [radius] * 4) > 0
    offsets = list(product(range(2 * radius + 1), repeat=2))
    found = source.new_empty(len(source), len(offsets), rows, columns)
    products = torch.empty_like(source)
    for each, (top, left) in zip(found.unbind(1), offsets, strict=True):
        place = (..., slice(top, top + rows), slice(left, left + columns))
        torch.mul(source, padded[place], out=products)
        torch.sum(products, dim=1, out=each)
        each.masked_fill_(~inside[place], -torch.inf)
    return found


@torch.no_grad()
def matching_flow(
    network: MidwayNetwork,
    source: Float[Tensor, "batch 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
    *,
    by: Literal["features", "dynamics"],
    level: int,
    radius: int,
) -> Float[Tensor, "batch 2 height width"]:
    """Flow in pixels from frozen features at one level.

    By features, those of the source are looked for in the target. By dynamics, what the network
    predicts of the source from the target is looked for in the target: it shows from where the
    forward model carries things.

    Args:
        network: In evaluation mode.
        source: ImageNet-normalised; sides are multiples of the patch size.
        target: Likewise.
        by: What is looked for.
        level: Encoder level; for dynamics one of the objective levels.
        radius: How far to look, in patches.

    Raises:
        MidwayError: The network's dynamics do not predict this level.
    """
    grid = network.grid(source)
    (found_in,) = network.encoder.levels(target, (level,))
    if by == "features":
        (looked_for,) = network.encoder.levels(source, (level,))
    elif level in network.config.dynamics.levels:
        looked_for = network(target, source).levels[level].prediction
    else:
        levels = ", ".join(map(str, network.config.dynamics.levels))
        raise MidwayError(f"level {level}: the dynamics predict levels {levels}; choose one")
    # What all patches share says nothing of a place.
    mean = found_in[:, 1:].mean(1, keepdim=True)
    maps = (to_map(tokens - mean, grid) for tokens in (looked_for, found_in))
    cells = match_maps(*maps, radius=radius)
    size = (source.shape[2], source.shape[3])
    flow = F.interpolate(cells, size, mode="bilinear")
    return flow * network.config.encoder.patch_size
