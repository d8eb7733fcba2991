"""Rotary positions in two dimensions, and transformer blocks with them (CroCo v2, DINOv3).

Queries and keys are rotated by angles proportional to row and column of their patch, so that
attention depends on the offset between two patches, for images of any size.
"""

import math
from typing import Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from midway.nn.blocks import DropPath, Heads, LayerScale, Mlp, Tokens, attend, block_mlp
from midway.nn.compilation import Region
from midway.nn.linear import Linear

BASE = 100.0
"""Ratio of the longest period of the rotations to the shortest, which is 2 pi patches."""
Positions = Int[Tensor, "batch tokens 2"]
Pairs = Literal["axes", "halves", "neighbours"]
"""Order of the channels of a head, see `rotate`: in CroCo, in DINOv3 and in V-JEPA."""
_ORDERS: dict[Pairs, tuple[tuple[int, ...], int]] = {
    "axes": ((2, 2, -1), -2),
    "halves": ((2, 2, -1), -3),
    "neighbours": ((-1, 2), -1),
}
"""Shape of a head's channels, and its dimension of the two channels of a pair."""


class Rotation(NamedTuple):
    """Cosines and sines of the angles of each token: frequencies of its row, then its column.

    For the order "neighbours", there is one angle a pair, of shape (batch, 1, tokens, pairs).
    """

    cos: Float[Tensor, "batch 1 tokens *angles"]
    sin: Float[Tensor, "batch 1 tokens *angles"]


def grid_positions(grid: tuple[int, int], device: torch.device) -> Int[Tensor, "1 rows*columns 2"]:
    """Return row and column of each patch, in row-major order."""
    rows, columns = (torch.arange(side, device=device) for side in grid)
    return torch.cartesian_prod(rows, columns)[None]


def rotation(positions: Positions, head_dim: int) -> Rotation:
    """Return the rotation of tokens at the given rows and columns.

    Frequency i of an axis is ``100 ** (-2 i / d)`` radians per patch, with d = head_dim / 2.

    Args:
        positions: Row and column of each token; a batch of 1 serves all samples.
        head_dim: Channels of an attention head, a multiple of 4.

    """
    index = torch.arange(head_dim // 4, device=positions.device)
    frequencies = BASE ** (-4 * index / head_dim)  # (head_dim / 4,)
    angles = positions[:, None, :, :, None] * frequencies  # (batch, 1, tokens, 2, head_dim / 4)
    return Rotation(angles.cos(), angles.sin())


def centred_rotation(
    grid: tuple[int, int], num_prefix: int, head_dim: int, device: torch.device
) -> Rotation:
    """Return the rotation of DINOv3: rows and columns from -1 to 1, whatever the image's size.

    Args:
        grid: Rows and columns of patches.
        num_prefix: Number of tokens before the patches, which are not rotated.
        head_dim: Channels of an attention head, a multiple of 4.
        device: Device of the result.

    """
    index = torch.arange(head_dim // 4, device=device)
    frequencies = 2 * math.pi * BASE ** (-4 * index / head_dim)  # (head_dim / 4,)
    # Centres of the patches, of which the image's borders are at -1 and 1.
    centres = [(torch.arange(side, device=device) + 0.5) / side * 2 - 1 for side in grid]
    angles = torch.cartesian_prod(*centres)[..., None] * frequencies  # (patches, 2, head_dim / 4)
    angles = torch.cat([angles.new_zeros(num_prefix, *angles.shape[1:]), angles])[None, None]
    return Rotation(angles.cos(), angles.sin())


def rotate(x: Heads, by: Rotation, pairs: Pairs = "axes") -> Heads:
    """Rotate pairs of channels of queries or keys.

    Args:
        x: Queries or keys.
        by: Rotation with an angle for each pair.
        pairs: Order of the channels. In "axes", the first half is for the row and the second for
            the column, and within a half of size d, channel i is paired with channel i + d / 2. In
            "halves", channels of the first half are paired with those of the second, and each half
            has quarters for row and column. In "neighbours", channels 2 i and 2 i + 1 are a pair.

    """
    split, pair = _ORDERS[pairs]
    # (batch, heads, tokens, head_dim) -> (batch, heads, tokens, 2 axes, 2 of a pair, head_dim / 4)
    first, second = x.unflatten(-1, split).unbind(pair)
    rotated = (first * by.cos - second * by.sin, second * by.cos + first * by.sin)
    # Angles are float32, because bfloat16 would round those of distant patches.
    return torch.stack(rotated, dim=pair).flatten(-len(split)).to(x.dtype)


class RotaryAttention(nn.Module):
    """Multi-head self-attention with rotary positions and fused weights (timm's layout)."""

    def __init__(self, dim: int, heads: int, *, pairs: Pairs = "axes") -> None:
        super().__init__()
        self.heads = heads
        self.pairs: Pairs = pairs
        self.qkv = Linear(dim, 3 * dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tokens, by: Rotation) -> Tokens:
        """Attend among the tokens of each sample, which stand at the positions of `by`."""
        # (batch, tokens, 3 * dim) -> (3, batch, heads, tokens, head_dim)
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        q, k = (rotate(x, by, self.pairs) for x in (q, k))
        return self.proj(attend(q, k, v).transpose(1, 2).flatten(2))


class RotaryCrossAttention(nn.Module):
    """Multi-head attention from queries to a memory, both with rotary positions."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.projq = Linear(dim, dim)
        self.projk = Linear(dim, dim)
        self.projv = Linear(dim, dim)
        self.proj = Linear(dim, dim)

    def forward(self, x: Tokens, memory: Tokens, by: Rotation, memory_by: Rotation) -> Tokens:
        """Attend from each token of `x` to `memory`."""
        # (batch, tokens or memory, dim) -> (batch, heads, tokens or memory, head_dim)
        q, k, v = (
            part.unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part in (self.projq(x), self.projk(memory), self.projv(memory))
        )
        mixed = attend(rotate(q, by), rotate(k, memory_by), v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class RotaryBlock(Region):
    """Pre-norm transformer block with rotary positions: self-attention, then an MLP of ratio 4.

    Args:
        dim: Width of the tokens.
        heads: Attention heads.
        norm_eps: Epsilon of the layer norms.
        drop_path: Probability of stochastic depth.
        layer_scale: If True, both branches have learned factors, as in `Block`.
        swiglu: Hidden channels of an MLP with a gate, as in `Block`; 0 for the usual one.
        pairs: Order of the channels of a head, see `rotate`.

    """

    def __init__(
        self,
        dim: int,
        heads: int,
        *,
        norm_eps: float,
        drop_path: float = 0.0,
        layer_scale: bool = False,
        swiglu: int = 0,
        pairs: Pairs = "axes",
    ) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = RotaryAttention(dim, heads, pairs=pairs)
        self.ls1 = LayerScale(dim) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = block_mlp(dim, swiglu)
        self.ls2 = LayerScale(dim) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(self, x: Tokens, by: Rotation) -> Tokens:
        """Return the tokens refined; with drop path, all samples must share their positions."""
        # Drop path runs the branch for some of the samples only.
        x = x + self.drop_path(x, lambda x: self.ls1(self.attn(self.norm1(x), by)))
        return x + self.drop_path(x, lambda x: self.ls2(self.mlp(self.norm2(x))))


class RotaryCrossBlock(Region):
    """Pre-norm decoder block: self-attention, cross-attention to an unchanged memory, MLP."""

    def __init__(self, dim: int, heads: int, *, norm_eps: float) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(dim, eps=norm_eps)
        self.attn = RotaryAttention(dim, heads)
        self.norm2 = nn.LayerNorm(dim, eps=norm_eps)
        self.norm_y = nn.LayerNorm(dim, eps=norm_eps)
        self.cross_attn = RotaryCrossAttention(dim, heads)
        self.norm3 = nn.LayerNorm(dim, eps=norm_eps)
        self.mlp = Mlp(dim, 4 * dim)

    def forward(self, x: Tokens, memory: Tokens, by: Rotation, memory_by: Rotation) -> Tokens:
        """Refine the tokens `x` by `memory`, the features of the other image."""
        x = x + self.attn(self.norm1(x), by)
        x = x + self.cross_attn(self.norm2(x), self.norm_y(memory), by, memory_by)
        return x + self.mlp(self.norm3(x))
