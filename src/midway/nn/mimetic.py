"""Weights to start from that compare tokens, for small networks and short runs.

Attention drawn at random looks everywhere alike, and tables of zeros or noise say nothing of
distances: to find what moved where, a network has to learn both before either helps. Here queries
and keys are equal at the start, so that a token attends to what resembles it (Trockman and Kolter,
Mimetic initialization of self-attention layers, 2023), and positions are sines and cosines.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from midway.nn.blocks import Attention

AMPLITUDE = 0.5
"""Of the sines and cosines; patch embeddings start with a deviation of about 1."""
LONGEST_PERIOD = 400
"""In patches; the shortest is 4."""
SELF_LOGIT = 6.0
"""About the attention logit between a token and itself, or its like."""
VALUE_GAIN = 0.7
"""Of the value and of the output projection, which undo each other's rotation."""


def sincos_positions(grid: tuple[int, int], dim: int) -> Float[Tensor, "1 tokens dim"]:
    """Position table of a class token, whose place is zero, and a grid of patches row by row.

    Args:
        grid: Rows and columns of patches.
        dim: A multiple of 4: sine and cosine of row and column.

    """
    share = torch.arange(dim // 4) / (dim // 4)
    frequencies = math.pi / 2 * (4 / LONGEST_PERIOD) ** share
    rows, columns = torch.meshgrid(*(torch.arange(side) for side in grid), indexing="ij")
    angles = [place.flatten()[:, None] * frequencies for place in (rows, columns)]
    patches = torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], dim=1)
    return AMPLITUDE * torch.cat([patches.new_zeros(1, dim), patches])[None]


@torch.no_grad()
def start_carrying(attention: Attention) -> None:
    """Let each token take over a share of what it attends to, unchanged, from the start."""
    dim = attention.proj.weight.shape[0]
    rotation = torch.linalg.qr(torch.randn(dim, dim)).Q
    attention.qkv.weight[2 * dim :] = VALUE_GAIN * rotation
    attention.proj.weight.copy_(VALUE_GAIN * rotation.T)


@torch.no_grad()
def start_comparing(attention: Attention) -> None:
    """Let each token attend to tokens like it from the start: queries and keys are the same."""
    dim = attention.proj.weight.shape[0]
    std = math.sqrt(SELF_LOGIT / (dim * math.sqrt(dim // attention.heads)))
    attention.qkv.weight[: 2 * dim] = (std * torch.randn(dim, dim)).repeat(2, 1)
