"""Causal transformer over the frames of a window, as in DynaMo's inverse and forward dynamics."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.config import check_at_least, check_at_most
from midway.errors import MidwayError
from midway.nn.blocks import Block, init_transformer
from midway.nn.linear import Linear

NORM_EPS = 1e-5
INIT_STD = 0.02


@dataclass(frozen=True, kw_only=True)
class CausalConfig:
    """Sizes of a causal transformer."""

    width: int = 360
    depth: int = 4
    heads: int = 6

    def __post_init__(self) -> None:
        check_at_least("dynamics", self, width=1, depth=1, heads=1)
        check_at_most("dynamics", self, width=2**16, depth=256)
        if self.width % self.heads:
            raise MidwayError(
                f"dynamics: width {self.width} is not a multiple of heads {self.heads}; change one"
            )


class CausalTransformer(nn.Module):
    """Pre-norm transformer whose output at a step depends on that step and earlier ones.

    Args:
        config: Sizes of its blocks.
        dim_in: Channels of the input.
        dim_out: Channels of the output.
        length: Largest number of steps; each has a learned position.

    """

    def __init__(self, config: CausalConfig, *, dim_in: int, dim_out: int, length: int) -> None:
        super().__init__()
        width = config.width
        self.embed = Linear(dim_in, width)
        self.positions = nn.Parameter(torch.zeros(1, length, width))
        self.blocks = nn.ModuleList(
            Block(width, config.heads, qkv_bias=True, norm_eps=NORM_EPS, causal=True)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(width, eps=NORM_EPS)
        self.head = Linear(width, dim_out)
        init_transformer(self, INIT_STD)
        nn.init.trunc_normal_(self.positions, std=INIT_STD)

    def forward(
        self, x: Float[Tensor, "batch steps dim_in"]
    ) -> Float[Tensor, "batch steps dim_out"]:
        """Transform the steps of each sample, at most `length` of them."""
        x = self.embed(x) + self.positions[:, : x.shape[1]]  # (batch, steps, width)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
