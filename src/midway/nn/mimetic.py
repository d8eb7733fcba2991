"""Mimetic initialisation: layers start as trained ones often are.

The few strong waves of a photograph do not dominate its embedded patches. Queries and keys are
equal, so that a token attends to tokens like it (Trockman and Kolter, Mimetic initialization of
self-attention layers, 2023), and positions are sine-cosine waves. Small networks and short runs
need it: random filters pass on little but colours, randomly drawn attention is uniform, and tables
of zeros or noise contain no distances, but finding motion needs all three at once.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.nn.blocks import Attention

AMPLITUDE = 0.5
"""Amplitude of the sine-cosine positions; patch embeddings start with a std of about 1."""
LONGEST_PERIOD = 400
"""Longest period of the sine-cosine positions in patches; the shortest is 4."""
SELF_LOGIT = 6.0
"""Approximate attention logit between a token and itself or an equal one."""
VALUE_GAIN = 0.7
"""Gain of the value and of the output projection, which are inverse rotations."""
MEAN_POWER, WAVE_POWER = 160.0, 10.0
"""Variance of the mean of 8 x 8 patches of photographs, times 64, and of a cosine wave of r half
periods along the patch, times r^2; measured on ImageNet-normalised brightness."""
COLOUR_POWER = (1.0, 0.15, 0.015)
"""Variance of brightness, of red against blue and of green against both, relative to brightness."""
FLOOR = 0.03
"""Variance that is added to each wave's before its gain is computed, relative to that of the mean;
it limits the gain of weak waves."""
SPREAD = 0.64
"""Standard deviation of an embedding of photographs, as with random weights of std 0.04."""


def sincos_positions(grid: tuple[int, int], dim: int) -> Float[Tensor, "1 tokens dim"]:
    """Return the position table of a class token, which is zero, and of patches row by row.

    Args:
        grid: Rows and columns of patches.
        dim: Width, a multiple of 4: sine and cosine of row and column.

    """
    # Periods from 4 patches to LONGEST_PERIOD, evenly spaced on a logarithmic scale.
    fraction = torch.arange(dim // 4) / (dim // 4)
    frequencies = math.pi / 2 * (4 / LONGEST_PERIOD) ** fraction  # (dim / 4,)
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    angles = [index.flatten()[:, None] * frequencies for index in (rows, columns)]
    patches = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return AMPLITUDE * torch.cat([patches.new_zeros(1, dim), patches])[None]


@torch.no_grad()
def start_carrying(attention: Attention) -> None:
    """Initialise values and output so that each token adds what it attends to, scaled."""
    # Output after value is VALUE_GAIN^2 R^T R, a multiple of the identity.
    dim = attention.proj.weight.shape[0]
    rotation = torch.linalg.qr(torch.randn(dim, dim)).Q
    attention.qkv.weight[2 * dim :] = VALUE_GAIN * rotation
    attention.proj.weight.copy_(VALUE_GAIN * rotation.T)


@torch.no_grad()
def start_comparing(attention: Attention) -> None:
    """Initialise queries and keys equally, so that each token attends to tokens like it."""
    # For tokens of unit variance, E[q . k] / sqrt(head_dim) = SELF_LOGIT for q = k.
    dim = attention.proj.weight.shape[0]
    std = math.sqrt(SELF_LOGIT / (dim * math.sqrt(dim // attention.heads)))
    attention.qkv.weight[: 2 * dim] = (std * torch.randn(dim, dim)).repeat(2, 1)


@torch.no_grad()
def start_whitened(proj: nn.Conv2d) -> None:
    """Initialise a patch embedding that flattens the spectrum of photographs.

    Its filters are cosine waves in brightness and two colour differences (a discrete cosine
    transform), each with the gain 1 / sqrt(variance in photographs + floor), in random directions
    of the embedding. It leaves out the weakest waves beyond its width. Random filters embed little
    more than the mean colour of a patch.
    """
    width, colours, side, _ = proj.weight.shape
    steps = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(math.pi / side * steps[:, None] * (steps + 0.5)) * math.sqrt(2 / side)
    waves[0] *= math.sqrt(0.5)  # (frequency, pixel), orthonormal
    axes = torch.tensor([[1.0, 1, 1], [1, 0, -1], [1, -2, 1]], dtype=torch.float64)
    axes = axes / axes.norm(dim=1, keepdim=True)  # (axis, colour)
    filters = torch.einsum("ac,vy,ux->avucyx", axes, waves, waves).flatten(0, 2)
    half_periods = steps[:, None] ** 2 + steps**2  # r^2
    power = WAVE_POWER / half_periods.clamp(min=1)
    power[0, 0] = MEAN_POWER
    power = (torch.tensor(COLOUR_POWER, dtype=torch.float64)[:, None] * power.flatten()).flatten()
    strongest = power.argsort(descending=True)[:width]
    gains = (power[strongest] + FLOOR * MEAN_POWER).rsqrt()
    spread = (gains**2 * power[strongest]).sum().div(width).sqrt()
    rotation = torch.linalg.qr(torch.randn(width, len(strongest), dtype=torch.float64)).Q
    weight = rotation @ (SPREAD / spread * gains[:, None] * filters[strongest].flatten(1))
    proj.weight.copy_(weight.unflatten(1, (colours, side, side)))
