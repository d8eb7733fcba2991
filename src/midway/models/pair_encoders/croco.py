"""Decoder of CroCo v2: completes the first image of a pair, with cross-attention to the second.

Its `state_dict` has the names of the published files (``decoder_embed``, ``dec_blocks``,
``dec_norm``).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn

from midway.config import check_at_least, check_at_most
from midway.errors import MidwayError
from midway.models.encoders.base import Map
from midway.models.encoders.croco import check_head_width
from midway.models.encoders.vit import HEADS, NORM_EPS
from midway.models.pair_encoders.base import PairEncoder
from midway.nn.blocks import Tokens, init_xavier
from midway.nn.linear import Linear
from midway.nn.rope import Positions, RotaryCrossBlock, grid_positions, rotation

PARTS = ("decoder_embed.", "dec_blocks.", "dec_norm.")
"""Prefixes of the names of its parameters."""
DECODER_HEADS = HEADS | {512: 16}
"""Attention heads by width of the published decoders."""


@dataclass(frozen=True, kw_only=True)
class CrocoDecoderConfig:
    """Sizes of the decoder; the defaults are those of the paper's table 9 for a ViT-S."""

    encoder_width: int = 384
    width: int = 192
    depth: int = 12
    heads: int = 3

    def __post_init__(self) -> None:
        # Three of its layers serve the flow head.
        check_at_least("decoder", self, encoder_width=1, width=1, depth=3, heads=1)
        check_at_most("decoder", self, encoder_width=2**16, width=2**16, depth=256)
        check_head_width("decoder", self.width, self.heads)


class CrocoDecoder(PairEncoder):
    """Decoder with self-attention among the first image's tokens and attention to the second's.

    Examples:
        >>> import torch
        >>> sizes = CrocoDecoderConfig(encoder_width=24, width=16, depth=3, heads=2)
        >>> maps = torch.zeros(2, 1, 24, 4, 6).unbind()
        >>> [tuple(each.shape) for each in CrocoDecoder(sizes).maps(maps[:1], maps[1:])]
        [(1, 24, 4, 6), (1, 16, 4, 6), (1, 16, 4, 6), (1, 16, 4, 6)]

    """

    kind = "croco"
    Config: ClassVar[type] = CrocoDecoderConfig
    config: CrocoDecoderConfig

    def __init__(self, config: CrocoDecoderConfig) -> None:
        super().__init__()
        self.config = config
        # Four of the encoder's and decoder's layers in one row, the last one included, as evenly
        # spaced as in the published code: step 3, 4 and 8 for decoders of 8, 12 and 24 layers.
        step = max(1, round(config.depth / 3))
        below_top = max(0, 3 * step - config.depth)
        self.levels = (-1,) if below_top == 0 else (-1 - below_top, -1)
        self.layers = (config.depth - 2 * step, config.depth - step, config.depth)
        self.widths = (config.encoder_width, config.width, config.width, config.width)
        self.decoder_embed = Linear(config.encoder_width, config.width)
        self.dec_blocks = nn.ModuleList(
            RotaryCrossBlock(config.width, config.heads, norm_eps=NORM_EPS)
            for _ in range(config.depth)
        )
        self.dec_norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        init_xavier(self)

    def forward(
        self,
        tokens: Float[Tensor, "batch tokens width"],
        memory: Float[Tensor, "batch memory width"],
        positions: Positions,
    ) -> list[Tokens]:
        """Return the tokens of the first image after every layer; only the last are normalised.

        Args:
            tokens: Embedded tokens of the first image, with mask tokens where it is masked.
            memory: Embedded tokens of the second image; no layer changes them.
            positions: Row and column of each token, the same in both images.

        """
        by = rotation(positions, self.config.width // self.config.heads)
        found = []
        for block in self.dec_blocks:
            tokens = block(tokens, memory, by, by)
            found.append(tokens)
        return [*found[:-1], self.dec_norm(found[-1])]

    def maps(self, source: Sequence[Map], target: Sequence[Map]) -> list[Map]:
        """Return a map of the encoder and three of the decoder, from the bottom up."""
        grid = (source[-1].shape[-2], source[-1].shape[-1])
        # (batch, encoder_width, rows, columns) -> (batch, rows * columns, width)
        tokens, memory = (
            self.decoder_embed(frame[-1].flatten(2).transpose(1, 2)) for frame in (source, target)
        )
        layers = self(tokens, memory, grid_positions(grid, tokens.device))
        chosen = [layers[number - 1] for number in self.layers]
        return [source[0], *(x.transpose(1, 2).unflatten(2, grid) for x in chosen)]

    @classmethod
    def read_tensors(
        cls, tensors: Mapping[str, Tensor]
    ) -> tuple[CrocoDecoderConfig, dict[str, Tensor]] | None:
        """Infer the sizes from tensors with the published names.

        Raises:
            MidwayError: The width does not determine the number of attention heads.

        """
        own = {name: tensor for name, tensor in tensors.items() if name.startswith(PARTS)}
        embed = own.get("decoder_embed.weight")
        blocks = {name.split(".")[1] for name in own if name.startswith("dec_blocks.")}
        if embed is None or embed.ndim != 2 or not blocks:
            return None
        width, encoder_width = embed.shape
        if width not in DECODER_HEADS:
            raise MidwayError(
                f"a CroCo decoder of width {width} does not determine its number of attention "
                "heads; give a run or an export of midway"
            )
        config = CrocoDecoderConfig(
            encoder_width=encoder_width,
            width=width,
            depth=len(blocks),
            heads=DECODER_HEADS[width],
        )
        return config, own


PAIR_ENCODER = CrocoDecoder
