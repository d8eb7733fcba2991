"""Flow without training: where frozen features of the source are found again in the target.

For each patch the correlation with the patches round it is turned into a place by a soft-argmax
close to its peak, so that flow is finer than the grid.
"""

from itertools import product

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, Images, Map
from midway.models.heads.dpt import to_map
from midway.models.midway import MidwayNetwork

Flow = Float[Tensor, "batch 2 height width"]
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
def feature_flow(
    encoder: Encoder, source: Images, target: Images, *, level: int, radius: int
) -> Flow:
    """Flow in pixels from frozen features at one level: those of the source, found in the target.

    Args:
        encoder: In evaluation mode.
        source: ImageNet-normalised; sides are multiples of the encoder's stride.
        target: Likewise.
        level: Encoder level.
        radius: How far to look, in cells of the level's map.
    """
    (found_in,) = encoder.maps(target, (level,))
    (looked_for,) = encoder.maps(source, (level,))
    return _flow(looked_for, found_in, source, encoder.strides((level,))[0], radius)


@torch.no_grad()
def dynamics_flow(
    network: MidwayNetwork, source: Images, target: Images, *, level: int, radius: int
) -> Flow:
    """Flow in pixels from where the forward model carries things.

    What the network predicts of the source from the target is looked for in the target.

    Args:
        network: In evaluation mode.
        source: ImageNet-normalised; sides are multiples of the patch size.
        target: Likewise.
        level: One of the objective levels.
        radius: How far to look, in patches.

    Raises:
        MidwayError: The network's dynamics do not predict this level.
    """
    if level not in network.config.dynamics.levels:
        levels = ", ".join(map(str, network.config.dynamics.levels))
        raise MidwayError(f"level {level}: the dynamics predict levels {levels}; choose one")
    (found_in,) = network.encoder.maps(target, (level,))
    prediction = network(target, source).levels[level].prediction
    looked_for = to_map(prediction, network.grid(source))
    return _flow(looked_for, found_in, source, network.encoder.stride, radius)


def _flow(looked_for: Map, found_in: Map, source: Images, stride: int, radius: int) -> Flow:
    # What all cells share says nothing of a place. Tokens give the mean in one order of summation.
    mean = found_in.flatten(2).transpose(1, 2).mean(1)[..., None, None]
    cells = match_maps(looked_for - mean, found_in - mean, radius=radius)
    size = (source.shape[2], source.shape[3])
    return F.interpolate(cells, size, mode="bilinear") * stride
