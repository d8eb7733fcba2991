"""Encoder of VideoMAE: a ViT on cuboids of a clip, without class token.

Its `state_dict` has the names of the published files, whose positions are not stored.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.config import check_at_least, check_at_most, require
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, Images, Map, as_map, patch_grid
from midway.models.encoders.vit import HEADS, NORM_EPS
from midway.models.vit_config import MAX_SIDE
from midway.nn.blocks import Attention, Block, Tokens, attend, init_xavier
from midway.nn.linear import linear
from midway.nn.positions import line_sinusoids

MAX_TOKENS = 2**16
"""Largest number of positions of a clip; the published networks have 1,568."""
Frames = Float[Tensor, "batch frames 3 height width"]


@dataclass(frozen=True, kw_only=True)
class VideoMaeEncoderConfig:
    """Sizes of the encoder; the defaults are the published ViT-S for 16 frames."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the position table, in pixels; other sizes are resampled."""
    num_frames: int = 16
    """Frames of the clips that the encoder was trained on."""
    tubelet: int = 2
    """Frames of a cuboid."""
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    still: Literal["slice", "clip"] = "slice"
    """Input for a single image: one slice of cuboids with equal frames, or a clip of such slices
    with its features averaged over time, at `num_frames` / `tubelet` times the cost or more."""

    def __post_init__(self) -> None:
        sizes = ("num_frames", "tubelet", "patch_size", "width", "depth", "heads")
        check_at_least("encoder", self, **dict.fromkeys(sizes, 1))
        most = {"num_frames": 2**12, "patch_size": 1024, "width": 2**16, "depth": 256}
        check_at_most("encoder", self, **most)
        patch = self.patch_size
        rules = {
            f"image_size {self.image_size}: not a multiple of patch_size {patch}, from that to "
            f"{MAX_SIDE}; change one": all(
                patch <= side <= MAX_SIDE and side % patch == 0 for side in self.image_size
            ),
            f"num_frames {self.num_frames}: not a multiple of tubelet {self.tubelet}; change one": (
                self.num_frames % self.tubelet == 0
            ),
            f"{self.num_slices} slices of {self.grid} patches: give {MAX_TOKENS} or less in all": (
                self.num_slices * self.grid[0] * self.grid[1] <= MAX_TOKENS
            ),
            f"width {self.width}: not a multiple of 2 and of heads {self.heads}; change one": (
                self.width % self.heads == 0 and self.width % 2 == 0
            ),
        }
        for rule, holds in rules.items():
            require("", {f"encoder: {rule}": holds})

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the position table."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size

    @property
    def num_slices(self) -> int:
        """Cuboids along time."""
        return self.num_frames // self.tubelet


class CuboidEmbed(nn.Module):
    """Linear projection of cuboids to tokens, slice by slice and row by row."""

    def __init__(self, patch_size: int, tubelet: int, dim: int) -> None:
        super().__init__()
        size = (tubelet, patch_size, patch_size)
        self.proj = nn.Conv3d(3, dim, kernel_size=size, stride=size)

    def forward(self, frames: Frames) -> Tokens:
        """Return the tokens of a clip."""
        # (batch, dim, slices, rows, columns) -> (batch, slices * rows * columns, dim)
        return self.proj(frames.transpose(1, 2)).flatten(2).transpose(1, 2)

    def still(self, images: Images) -> Tokens:
        """Return the tokens of cuboids whose frames are all equal: one slice of a static clip."""
        weight = self.proj.weight.sum(2)  # (dim, 3, patch, patch)
        patches = F.conv2d(images, weight, self.proj.bias, stride=self.proj.stride[1:])
        return patches.flatten(2).transpose(1, 2)


class QueryValueAttention(Attention):
    """Self-attention whose queries and values have a bias, but not its keys."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads, qkv_bias=False)
        self.q_bias = nn.Parameter(torch.zeros(dim))
        self.v_bias = nn.Parameter(torch.zeros(dim))

    def forward(self, x: Tokens, num_wanted: int | None = None) -> Tokens:
        """Attend among the tokens of each sample; return all tokens, or the first `num_wanted`."""
        # A bias of the keys would change all scores of a query equally, and so no probability.
        bias = torch.cat([self.q_bias, torch.zeros_like(self.v_bias), self.v_bias])
        qkv = linear(x, self.qkv.weight, bias).unflatten(-1, (3, self.heads, -1))
        # (batch, tokens, 3, heads, head_dim) -> three of (batch, heads, tokens, head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        return self.proj(attend(q[:, :, :num_wanted], k, v).transpose(1, 2).flatten(2))


class VideoMaeBlock(Block):
    """Pre-norm transformer block without a bias of the keys, in encoder and decoder."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__(dim, heads, qkv_bias=False, norm_eps=NORM_EPS)
        self.attn = QueryValueAttention(dim, heads)


class VideoMaeEncoder(Encoder):
    """Pre-norm ViT on the cuboids of a clip; as an image encoder, it sees a static clip.

    Examples:
        >>> import torch
        >>> sizes = {"image_size": (32, 32), "patch_size": 8, "width": 24, "depth": 2, "heads": 2}
        >>> net = VideoMaeEncoder(VideoMaeEncoderConfig(num_frames=4, **sizes))
        >>> net.embed(torch.zeros(1, 4, 3, 32, 32)).shape
        torch.Size([1, 32, 24])
        >>> net.maps(torch.zeros(1, 3, 32, 48), (-1,))[0].shape
        torch.Size([1, 24, 4, 6])

    """

    kind = "videomae"
    Config: ClassVar[type] = VideoMaeEncoderConfig
    config: VideoMaeEncoderConfig
    table: Tensor
    """Positions of `config.grid`, shape (1, slices * rows * columns, dim)."""

    def __init__(self, config: VideoMaeEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.width, self.depth, self.stride = config.width, config.depth, config.patch_size
        rows, columns = config.grid
        table = line_sinusoids(config.num_slices * rows * columns, config.width)
        # Not in the state dict, as in the published files.
        self.register_buffer("table", table, persistent=False)
        self.patch_embed = CuboidEmbed(config.patch_size, config.tubelet, config.width)
        self.blocks = nn.ModuleList(
            VideoMaeBlock(config.width, config.heads) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        init_xavier(self)

    def embed(self, frames: Frames) -> Tokens:
        """Return the tokens of a clip with their positions, ready for `run_blocks`.

        Args:
            frames: ImageNet-normalised clip of `config.num_frames`.

        """
        grid = patch_grid(frames[:, 0], self.stride)
        return self.patch_embed(frames) + self.positions(grid)

    def positions(self, grid: tuple[int, int]) -> Float[Tensor, "1 tokens dim"]:
        """Return the position table for a grid of patches, resampled in space if need be."""
        if grid == self.config.grid:
            return self.table
        rows_columns = self.config.grid
        # (1, slices * rows * columns, dim) -> (slices, dim, rows, columns), one image per slice
        images = self.table[0].unflatten(0, (-1, *rows_columns)).permute(0, 3, 1, 2)
        images = F.interpolate(images, size=grid, mode="bicubic")
        return images.permute(0, 2, 3, 1).flatten(0, 2)[None]

    def run_blocks(self, tokens: Tokens, levels: Sequence[int]) -> list[Tokens]:
        """Return the tokens after the given blocks, normalised by the encoder's final norm.

        Args:
            tokens: Output of `embed`; a method may drop some of them.
            levels: Blocks, 1-based or negative from the top.

        Raises:
            MidwayError: A level does not exist.

        """
        levels = self.resolved(levels)
        found: dict[int, Tensor] = {}
        # Blocks above the highest level are not computed.
        for level, block in enumerate(self.blocks[: max(levels)], start=1):
            tokens = block(tokens)
            if level in levels:
                found[level] = self.norm(tokens)
        return [found[level] for level in levels]

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return one map per level of single images, in the form of `config.still`."""
        positions = self.positions(patch_grid(images, self.stride))
        num_slices = self.config.num_slices if self.config.still == "clip" else 1
        patches = self.patch_embed.still(images)  # (batch, rows * columns, dim)
        positions = positions[:, : num_slices * patches.shape[1]]
        tokens = patches.repeat(1, num_slices, 1) + positions
        # Mean over the slices: (batch, slices * patches, dim) -> (batch, patches, dim)
        found = [x.unflatten(1, (num_slices, -1)).mean(1) for x in self.run_blocks(tokens, levels)]
        return [as_map(x, images, self.stride) for x in found]

    def forward(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return the mean of the patches at the top level, one vector per image."""
        return self.maps(images, (-1,))[0].mean((2, 3))

    def set_drop_path(self, p: float) -> None:
        """Set stochastic depth: linear from 0 in the first block to `p` in the last."""
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block)
            block.drop_path.p = p * index / max(self.depth - 1, 1)

    @classmethod
    def read_config(
        cls, tensors: Mapping[str, Tensor], *, heads: int | None = None
    ) -> VideoMaeEncoderConfig | None:
        """Infer the sizes from tensors with the published names, for 16 frames of 224 pixels.

        Raises:
            MidwayError: `heads` is None, and the width does not determine it.

        """
        patches = tensors.get("patch_embed.proj.weight")
        if patches is None or patches.ndim != 5 or "blocks.0.attn.q_bias" not in tensors:
            return None
        width, _, tubelet, patch, _ = patches.shape
        blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
        heads = HEADS.get(width) if heads is None else heads
        if heads is None:
            raise MidwayError(
                f"a VideoMAE encoder of width {width} does not determine its number of attention "
                "heads; give --encoder-heads"
            )
        # The table is not in the file; all published networks have that of 16 frames of 224 pixels.
        return VideoMaeEncoderConfig(
            tubelet=tubelet, patch_size=patch, width=width, depth=len(blocks), heads=heads
        )


ENCODER = VideoMaeEncoder
