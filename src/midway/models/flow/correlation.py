"""Optical flow without training, by correlation of frozen features.

Each source patch is compared with the target patches in a window. A soft-argmax near the peak of
the correlation gives displacements finer than the grid; over the whole window, it gives the mean of
all displacements by their plausibility, so that uncertain flow shrinks to zero.
"""

from itertools import product
from typing import Literal, TypeAlias

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
"""Temperature of the softmax over cosines."""
PEAK_RADIUS = 1.5
"""Radius of the soft-argmax around the best cell: a peak further away is another match."""
WINDOW_TEMPERATURE, WINDOW_RELUCTANCE = 0.05, 0.2
"""Temperature and penalty per cell of the soft-argmax over the window, those with the lowest EPE on
FlyingChairs (docs/experiments/motion.md)."""
Average: TypeAlias = Literal["peak", "window"]
"""Cells that the soft-argmax covers: those near the best one, or all in the window."""


@torch.no_grad()
def match_maps(
    source: Float[Tensor, "batch dim rows columns"],
    target: Float[Tensor, "batch dim rows columns"],
    *,
    radius: int,
    temperature: float = TEMPERATURE,
    reluctance: float = 0.0,
    average: Average = "peak",
) -> Float[Tensor, "batch 2 rows columns"]:
    """Return the displacement, in cells (right, down), to the similar cells of the target.

    Args:
        source: Features of any length; they are normalised.
        target: Features of the same shape.
        radius: Search radius in cells along each axis.
        temperature: Temperature of the softmax over the cosines.
        reluctance: Penalty on a cosine per cell of displacement; breaks ties.
        average: Cells that are averaged: those near the most similar one, or all in the window.
    """
    steps = range(-radius, radius + 1)
    shifts = [(u, v) for v in steps for u in steps]
    offsets = source.new_tensor(shifts)  # ((2 * radius + 1)^2, 2)
    cosines = _cosines(F.normalize(source, dim=1), F.normalize(target, dim=1), radius)
    # (batch, offsets, rows, columns)
    cosines = cosines - reluctance * offsets.norm(dim=1)[:, None, None]
    best = offsets[cosines.argmax(1)].permute(0, 3, 1, 2)  # (batch, 2, rows, columns)
    flow, total = torch.zeros_like(best), cosines.new_zeros(())
    # Soft-argmax, one offset at a time to save memory; subtracting the maximum avoids overflow.
    highest = cosines.amax(1)  # (batch, rows, columns)
    for (u, v), cosine in zip(shifts, cosines.unbind(1), strict=True):
        weight = ((cosine - highest) / temperature).exp()
        if average == "peak":
            apart = (best - best.new_tensor([u, v])[:, None, None]).abs().amax(1)
            weight = weight * (apart < PEAK_RADIUS)
        flow += weight[:, None] * flow.new_tensor([u, v])[:, None, None]
        total = total + weight
    return flow / total[:, None]


def _cosines(source: Tensor, target: Tensor, radius: int) -> Tensor:
    """Return the dot products of each cell with its window, (batch, offsets, rows, columns)."""
    # One offset at a time: all products would need many times the memory of the features. They
    # share one buffer, because new buffers between persistent results fragment the heap.
    rows, columns = source.shape[2:]
    padded = F.pad(target, [radius] * 4)
    # Cells outside the target never match.
    inside = F.pad(torch.ones_like(target[:1, 0]), [radius] * 4) > 0
    offsets = list(product(range(2 * radius + 1), repeat=2))
    found = source.new_empty(source.shape[0], len(offsets), rows, columns)
    products = torch.empty_like(source)
    for each, (top, left) in zip(found.unbind(1), offsets, strict=True):
        place = (..., slice(top, top + rows), slice(left, left + columns))
        torch.mul(source, padded[place], out=products)
        torch.sum(products, dim=1, out=each)  # (batch, rows, columns)
        each.masked_fill_(~inside[place], -torch.inf)
    return found


@torch.no_grad()
def feature_flow(
    encoder: Encoder,
    source: Images,
    target: Images,
    *,
    level: int,
    radius: int,
    average: Average = "peak",
) -> Flow:
    """Return flow in pixels by matching frozen features of source and target at one level.

    Args:
        encoder: In evaluation mode.
        source: ImageNet-normalised; sides are multiples of the encoder's stride.
        target: Frame of the same size, ImageNet-normalised.
        level: Encoder level.
        radius: Search radius in cells of the map at this level.
        average: Cells that are averaged: those near the most similar one, or all in the window.
    """
    (found_in,) = encoder.maps(target, (level,))
    (looked_for,) = encoder.maps(source, (level,))
    return _flow(looked_for, found_in, source, encoder.strides((level,))[0], radius, average)


@torch.no_grad()
def dynamics_flow(
    network: MidwayNetwork,
    source: Images,
    target: Images,
    *,
    level: int,
    radius: int,
    average: Average = "peak",
) -> Flow:
    """Return flow in pixels by matching the dynamics' prediction of the source in the target.

    Args:
        network: In evaluation mode.
        source: ImageNet-normalised; sides are multiples of the patch size.
        target: Frame of the same size, ImageNet-normalised.
        level: One of the objective levels.
        radius: Search radius in patches.
        average: Cells that are averaged: those near the most similar one, or all in the window.

    Raises:
        MidwayError: The dynamics do not predict this level.
    """
    if level not in network.config.dynamics.levels:
        levels = ", ".join(map(str, network.config.dynamics.levels))
        raise MidwayError(f"level {level}: the dynamics predict levels {levels}; choose one")
    grid = network.grid(source)
    looked_for, found_in = (
        to_map(tokens, grid) for tokens in predicted_source(network, source, target, level)
    )
    return _flow(looked_for, found_in, source, network.encoder.stride, radius, average)


def predicted_source(
    network: MidwayNetwork, source: Tensor, target: Tensor, level: int
) -> tuple[Tensor, Tensor]:
    """Return the predicted features of the source, and the target's features to find them in.

    The network runs backward in time: its prediction has the layout of the source, but is made of
    features of the target.

    Args:
        network: Network in evaluation mode.
        source: Shape (batch, 3, height, width), ImageNet-normalised.
        target: Same shape, ImageNet-normalised.
        level: Objective level of the network.

    Returns:
        Two tensors of shape (batch, 1 + patches, dim).

    """
    features, seen = network.encode(target, source)
    output = network.predict(features, seen, network.grid(source), lowest=level).levels[level]
    return output.prediction, features[network.config.levels.index(level)]


def _flow(
    looked_for: Map, found_in: Map, source: Images, stride: int, radius: int, average: Average
) -> Flow:
    # The mean over cells does not depend on the position, so it only flattens the correlation.
    # Summed over tokens, because another order of summation rounds differently.
    mean = found_in.flatten(2).transpose(1, 2).mean(1)[..., None, None]
    cells = match_maps(
        looked_for - mean,
        found_in - mean,
        radius=radius,
        temperature=TEMPERATURE if average == "peak" else WINDOW_TEMPERATURE,
        reluctance=0.0 if average == "peak" else WINDOW_RELUCTANCE,
        average=average,
    )
    size = (source.shape[2], source.shape[3])
    # Upsampled to pixels, and scaled from cells to pixels.
    return F.interpolate(cells, size, mode="bilinear") * stride
