"""Image encoder of V-JEPA 2.1 (Mur-Labadia et al., 2026), as a frozen reference for images.

It is a ViT without class token, with rotary positions in time, row and column. An image is one
frame at time 0, so that the channels for time are not rotated.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from midway.config import check_at_least, check_at_most
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, Images, Map, as_map, patch_grid
from midway.models.encoders.vit import HEADS, NORM_EPS
from midway.nn.blocks import init_transformer
from midway.nn.embed import PatchEmbed
from midway.nn.rope import RotaryBlock, Rotation

BASE = 10_000.0
"""Ratio of the longest period of the rotations to the shortest."""
SIDES = {14: 18, 16: 16}
"""Rows and columns of the first training by patch size; positions always span as many."""


@dataclass(frozen=True, kw_only=True)
class VJepaConfig:
    """Sizes of the encoder; the defaults are the published ViT-B/16 at 384."""

    image_size: tuple[int, int] = (384, 384)
    """Height and width of the training images in pixels; no weight depends on them."""
    patch_size: int = 16
    width: int = 768
    depth: int = 12
    heads: int = 12

    def __post_init__(self) -> None:
        check_at_least("encoder", self, patch_size=1, width=1, depth=1, heads=1)
        check_at_most("encoder", self, patch_size=1024, width=2**16, depth=256)
        if self.width % self.heads or self.width // self.heads % 2 or self.width // self.heads < 6:
            raise MidwayError(
                f"encoder: width {self.width} and heads {self.heads} must give heads of an even "
                "number of channels, 6 or more; change one"
            )


class VJepaEncoder(Encoder):
    """The part of V-JEPA 2.1 that encodes images; levels are normalised by its last norm."""

    kind = "vjepa"
    Config: ClassVar[type] = VJepaConfig
    config: VJepaConfig

    def __init__(self, config: VJepaConfig) -> None:
        super().__init__()
        self.config = config
        self.width, self.depth, self.stride = config.width, config.depth, config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.blocks = nn.ModuleList(
            RotaryBlock(config.width, config.heads, norm_eps=NORM_EPS, pairs="neighbours")
            for _ in range(config.depth)
        )
        self.top_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        init_transformer(self, 0.02)

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return one map per level.

        Raises:
            MidwayError: A level does not exist, or sides are no multiples of the patch size.

        """
        levels = self.resolved(levels)
        rotation = self._rotation(patch_grid(images, self.stride), images.device)
        x = self.patch_embed(images)  # (batch, patches, dim)
        found: dict[int, Map] = {}
        for level, block in enumerate(self.blocks[: max(levels)], start=1):
            x = block(x, rotation)
            if level in levels:
                found[level] = as_map(self.top_norm(x), images, self.stride)
        return [found[level] for level in levels]

    def set_drop_path(self, p: float) -> None:
        """Set stochastic depth: linear from 0 in the first block to `p` in the last."""
        for index, block in enumerate(self.blocks):
            assert isinstance(block, RotaryBlock)
            block.drop_path.p = p * index / max(self.depth - 1, 1)

    @classmethod
    def read_config(
        cls, tensors: Mapping[str, Tensor], *, heads: int | None = None
    ) -> VJepaConfig | None:
        """Infer the sizes from tensors with the names of this class.

        Raises:
            MidwayError: `heads` is None, and the width does not determine it.

        """
        if "top_norm.weight" not in tensors:
            return None
        try:
            width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
            blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
        except (KeyError, ValueError, IndexError):
            return None
        heads = HEADS.get(width) if heads is None else heads
        if heads is None:
            raise MidwayError(
                f"a V-JEPA of width {width} does not determine its number of attention heads; give "
                "--encoder-heads"
            )
        return VJepaConfig(patch_size=patch, width=width, depth=len(blocks), heads=heads)

    def _rotation(self, grid: tuple[int, int], device: torch.device) -> Rotation:
        """Return one angle for each token and pair of neighbouring channels.

        Thirds of a head's channels, rounded down to pairs, are for time, row and column; the rest
        is not rotated.
        """
        head_dim = self.width // self.config.heads
        num_pairs = head_dim // 3 // 2
        frequencies = BASE ** (-torch.arange(num_pairs, device=device) / num_pairs)
        span = SIDES.get(self.stride, max(grid)) - 1
        # Rows and columns from 0 to 15, whatever the size of the image.
        places = [torch.arange(side, device=device) * (span / max(side - 1, 1)) for side in grid]
        # (patches, 2, pairs) -> (patches, 2 * pairs)
        angles = (torch.cartesian_prod(*places)[..., None] * frequencies).flatten(1)
        angles = nn.functional.pad(angles, (num_pairs, head_dim // 2 - 3 * num_pairs))[None, None]
        return Rotation(angles.cos(), angles.sin())


ENCODER = VJepaEncoder
