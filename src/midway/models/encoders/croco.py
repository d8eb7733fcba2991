"""Encoder of CroCo v2: a ViT without class token, with rotary positions in its attention.

Its `state_dict` has the names of the published files (``enc_blocks``, ``enc_norm``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from midway.config import check_at_least, check_at_most
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, Images, Map, as_map, patch_grid
from midway.models.encoders.vit import HEADS, NORM_EPS
from midway.nn.blocks import Tokens, init_xavier
from midway.nn.embed import PatchEmbed
from midway.nn.rope import Positions, RotaryBlock, grid_positions, rotation

BLOCKS = "enc_blocks."
"""Prefix of the names of the blocks."""


@dataclass(frozen=True, kw_only=True)
class CrocoEncoderConfig:
    """Sizes of the encoder; the defaults are ViT-S/16."""

    patch_size: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6

    def __post_init__(self) -> None:
        check_at_least("encoder", self, patch_size=1, width=1, depth=1, heads=1)
        check_at_most("encoder", self, patch_size=1024, width=2**16, depth=256)
        check_head_width("encoder", self.width, self.heads)


def check_head_width(part: str, width: int, heads: int) -> None:
    """Check that heads divide a width into parts that rotary positions can rotate.

    Raises:
        MidwayError: The heads do not divide it so; the message names `part`.

    """
    if width % (4 * heads):
        raise MidwayError(
            f"{part}: width {width} is not a multiple of 4 * heads ({4 * heads}), as rotary "
            "positions need; change one"
        )


class CrocoEncoder(Encoder):
    """Pre-norm ViT with rotary positions, for images of any size.

    Examples:
        >>> import torch
        >>> net = CrocoEncoder(CrocoEncoderConfig(patch_size=8, width=24, depth=2, heads=2))
        >>> net.maps(torch.zeros(1, 3, 32, 48), (-1,))[0].shape
        torch.Size([1, 24, 4, 6])

    """

    kind = "croco"
    Config: ClassVar[type] = CrocoEncoderConfig
    config: CrocoEncoderConfig

    def __init__(self, config: CrocoEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.width, self.depth, self.stride = config.width, config.depth, config.patch_size
        self.patch_embed = PatchEmbed(config.patch_size, config.width)
        self.enc_blocks = nn.ModuleList(
            RotaryBlock(config.width, config.heads, norm_eps=NORM_EPS) for _ in range(config.depth)
        )
        self.enc_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        init_xavier(self)

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return one map per level, normalised by the encoder's final norm."""
        positions = grid_positions(patch_grid(images, self.stride), images.device)
        found = self.run_blocks(self.patch_embed(images), positions, levels)
        return [as_map(x, images, self.stride) for x in found]

    def forward(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return the mean of the patches at the top level, one vector per image."""
        return self.maps(images, (-1,))[0].mean((2, 3))

    def run_blocks(
        self, patches: Tokens, positions: Positions, levels: Sequence[int]
    ) -> list[Tokens]:
        """Return the tokens after the given blocks, normalised by the encoder's final norm.

        Args:
            patches: Output of `patch_embed`; a method may drop some of them.
            positions: Row and column of each token; a batch of 1 is shared by all samples.
            levels: Blocks, 1-based or negative from the top.

        Raises:
            MidwayError: A level does not exist.

        """
        levels = self.resolved(levels)
        by = rotation(positions, self.width // self.config.heads)
        found: dict[int, Tensor] = {}
        # Blocks above the highest level are not computed.
        for level, block in enumerate(self.enc_blocks[: max(levels)], start=1):
            patches = block(patches, by)
            if level in levels:
                found[level] = self.enc_norm(patches)
        return [found[level] for level in levels]

    def set_drop_path(self, p: float) -> None:
        """Set stochastic depth: linear from 0 in the first block to `p` in the last."""
        for index, block in enumerate(self.enc_blocks):
            assert isinstance(block, RotaryBlock)
            block.drop_path.p = p * index / max(self.depth - 1, 1)

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter for layer decay: 0 for the embedding, then the blocks."""
        return super().layer_of(name.removeprefix("enc_"))

    @classmethod
    def read_config(
        cls, tensors: Mapping[str, Tensor], *, heads: int | None = None
    ) -> CrocoEncoderConfig | None:
        """Infer the sizes from tensors with the published names.

        Raises:
            MidwayError: `heads` is None, and the width does not determine it.

        """
        blocks = {int(name.split(".")[1]) for name in tensors if name.startswith(BLOCKS)}
        patches = tensors.get("patch_embed.proj.weight")
        if not blocks or patches is None or patches.ndim != 4:
            return None
        width, _, patch, _ = patches.shape
        heads = HEADS.get(width) if heads is None else heads
        if heads is None:
            raise MidwayError(
                f"a CroCo encoder of width {width} does not determine its number of attention "
                "heads; give --encoder-heads"
            )
        return CrocoEncoderConfig(patch_size=patch, width=width, depth=len(blocks), heads=heads)


ENCODER = CrocoEncoder
