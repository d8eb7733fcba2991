"""Mimetic initialisation: attention starts as trained attention often is, on similar tokens.

Queries and keys are equal at the start, so that a token attends to tokens like it (Trockman and
Kolter, Mimetic initialization of self-attention layers, 2023), and positions are sine-cosine waves.
Small networks and short runs need it: randomly drawn attention is uniform, and tables of zeros or
noise contain no distances, but finding motion needs both at the same time.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from midway.nn.blocks import Attention

AMPLITUDE = 0.5
"""Amplitude of the sine-cosine positions; patch embeddings start with a std of about 1."""
LONGEST_PERIOD = 400
"""Longest period of the sine-cosine positions in patches; the shortest is 4."""
SELF_LOGIT = 6.0
"""Approximate attention logit between a token and itself or an equal one."""
VALUE_GAIN = 0.7
"""Gain of the value and of the output projection, which are inverse rotations."""


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
