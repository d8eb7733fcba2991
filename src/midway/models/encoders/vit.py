"""Vision transformer that Midway trains, with timm's layout and parameter names."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.errors import MidwayError
from midway.models.encoders.base import (
    Encoder,
    Images,
    Map,
    as_map,
    in_format,
    patch_grid,
    taken_levels,
)
from midway.models.vit_config import MAX_SIDE as MAX_SIDE
from midway.models.vit_config import NORM_EPS as NORM_EPS
from midway.models.vit_config import EncoderConfig as EncoderConfig
from midway.nn.blocks import Block, Tokens, init_transformer
from midway.nn.embed import PatchEmbed, resample_positions
from midway.nn.mimetic import sincos_positions, start_whitened
from midway.nn.rope import RotaryBlock, Rotation, centred_rotation

SIDE = 224
"""Side of the images of a ViT whose tensors do not determine it, in pixels."""
HEADS = {192: 3, 384: 6, 768: 12, 1024: 16, 1536: 24}
"""Attention heads by width, where all published ViTs of a width have one number."""


@dataclass(frozen=True, kw_only=True)
class TopAttention:
    """Output of a ViT with the attention of its last block."""

    cls: Float[Tensor, "batch dim"]
    """Class token after the final norm."""
    patches: Float[Tensor, "batch patches dim"]
    """Patch tokens after the final norm."""
    cls_attention: Float[Tensor, "batch heads patches"]
    """Attention of the class token to the patches, float32; its rest goes to the other tokens."""
    queries: Float[Tensor, "batch heads patches head_dim"]
    keys: Float[Tensor, "batch heads patches head_dim"]


class VisionTransformer(Encoder):
    """Pre-norm ViT with a class token, for images of any size.

    Its `state_dict` has the names of timm's `vit_small_patch16_224`. Options of the configuration
    make it the ViT of MAE, DINOv2 or DINOv3.
    """

    kind = "vit"
    Config: ClassVar[type] = EncoderConfig
    config: EncoderConfig

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.width, self.depth, self.stride = config.width, config.depth, config.patch_size
        dim, rows_columns = config.width, config.grid
        self.cls_token = nn.Parameter(torch.zeros(1, 1, dim))
        if config.num_registers:
            self.reg_token = nn.Parameter(torch.zeros(1, config.num_registers, dim))
            nn.init.trunc_normal_(self.reg_token, std=0.02)
        is_rotary = config.positions == "rotary"
        if not is_rotary:
            positions = torch.zeros(1, 1 + rows_columns[0] * rows_columns[1], dim)
            self.pos_embed = nn.Parameter(positions)
        self.patch_embed = PatchEmbed(config.patch_size, dim, mean=config.mean, std=config.std)
        self.blocks = nn.ModuleList(
            _block(config, config.drop_path * index / max(config.depth - 1, 1))
            for index in range(config.depth)
        )
        self.norm = nn.LayerNorm(dim, eps=config.norm_eps)
        init_transformer(self, config.init_std)
        if not is_rotary:
            nn.init.trunc_normal_(self.pos_embed, std=0.02)
        if config.sincos_positions:
            self.pos_embed.data.copy_(sincos_positions(config.grid, dim))
        if config.whitened_patches:
            start_whitened(self.patch_embed.proj)
        nn.init.trunc_normal_(self.cls_token, std=0.02)

    def levels(
        self, images: Float[Tensor, "batch 3 height width"], levels: Sequence[int]
    ) -> list[Float[Tensor, "batch tokens dim"]]:
        """Return the features after the given blocks, normalised by the encoder's final norm.

        Args:
            images: ImageNet-normalised; sides are multiples of the patch size.
            levels: Blocks in any order, 1-based or negative from the top; (3, 6, 9, 12) in the
                paper.

        Returns:
            One tensor per level: the class token, then the patches row by row.

        Raises:
            MidwayError: A level that the encoder does not have, or sides that do not fit.

        """
        features = self.run_blocks(self.embed(images), levels, self.grid(images))
        return [self._without_registers(each) for each in features]

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return one map per level, without the class token."""
        return [as_map(x[:, 1:], images, self.stride) for x in self.levels(images, levels)]

    def forward_intermediates(
        self,
        x: Images,
        indices: int | Sequence[int] | None = None,
        return_prefix_tokens: bool = False,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: Literal["NCHW", "NLC"] = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """Return feature maps as timm's ViT does, with all tokens as the final output."""
        levels = taken_levels(indices, self.depth)
        top = levels[-1] if stop_early else self.depth
        *found, last = self.run_blocks(self.embed(x), (*levels, top), self.grid(x), norm=False)
        found = [self.norm(each) for each in found] if norm else found
        first = 1 + self.config.num_registers
        maps: list[Any] = [
            in_format(as_map(each[:, first:], x, self.stride), output_fmt) for each in found
        ]
        if return_prefix_tokens:
            maps = [*zip(maps, (each[:, :first] for each in found), strict=True)]
        return maps if intermediates_only else (self.norm(last), maps)

    def set_drop_path(self, p: float) -> None:
        """Set stochastic depth: linear from 0 in the first block to `p` in the last."""
        for index, block in enumerate(self.blocks):
            assert isinstance(block, Block | RotaryBlock)
            block.drop_path.p = p * index / max(self.depth - 1, 1)

    @classmethod
    def read_config(
        cls, tensors: Mapping[str, Tensor], *, heads: int | None = None
    ) -> EncoderConfig | None:
        """Infer the sizes from tensors with timm's names; the position table counts as square.

        Raises:
            MidwayError: `heads` is None, and the width does not determine it.

        """
        try:
            width, _, patch, _ = tensors["patch_embed.proj.weight"].shape
            is_rotary = "pos_embed" not in tensors and "cls_token" in tensors
            # Without a table, no tensor depends on the size of the images.
            table = tensors["pos_embed"].shape[1] if not is_rotary else (SIDE // patch) ** 2 + 1
            side = round(max(table - 1, 0) ** 0.5)
            blocks = {int(name.split(".")[1]) for name in tensors if name.startswith("blocks.")}
            num_registers = tensors["reg_token"].shape[1] if "reg_token" in tensors else 0
            gate = "blocks.0.mlp.fc1_g.weight"
            swiglu = tensors[gate].shape[0] if gate in tensors else 0
        except (KeyError, ValueError, IndexError, ZeroDivisionError):
            return None
        heads = HEADS.get(width) if heads is None else heads
        if heads is None:
            raise MidwayError(
                f"a ViT of width {width} does not determine its number of attention heads; give "
                "--encoder-heads"
            )
        return EncoderConfig(
            image_size=(side * patch, side * patch),
            patch_size=patch,
            width=width,
            depth=len(blocks),
            heads=heads,
            num_registers=num_registers,
            swiglu=swiglu,
            layer_scale="blocks.0.ls1.gamma" in tensors,
            positions="rotary" if is_rotary else "learned",
        )

    def forward(self, images: Float[Tensor, "batch 3 height width"]) -> Float[Tensor, "batch dim"]:
        """Return the class token of the last level, one vector per image."""
        x = self.embed(images)
        if self.config.positions == "rotary":
            return self.run_blocks(x, (-1,), self.grid(images))[0][:, 0]
        *blocks, last = self.blocks
        for block in blocks:
            x = block(x)
        # The last block computes the class token only; nothing reads the others.
        return self.norm(last(x, 1)[:, 0])

    def top_attention(self, images: Images) -> TopAttention:
        """Return the tokens of the top level, and queries, keys and attention of the last block.

        For networks that are not trained: stochastic depth does not apply to the last block.

        Args:
            images: ImageNet-normalised; sides are multiples of the patch size.

        """
        x = self.embed(images)
        self._rotation(x, None)  # refuses rotary positions
        *blocks, last = self.blocks
        assert isinstance(last, Block)
        for block in blocks:
            x = block(x)
        x, queries, keys = last.with_queries_and_keys(x)  # (batch, heads, tokens, head_dim)
        x = self.norm(x)
        # The fused kernel has no probabilities; one query of each head is little work. As products
        # and a sum, because autocast would round a matrix product.
        scores = (queries[:, :, :1].float() * keys.float()).sum(-1)  # (batch, heads, tokens)
        attention = (scores * queries.shape[-1] ** -0.5).softmax(-1)
        first = 1 + self.config.num_registers
        return TopAttention(
            cls=x[:, 0],
            patches=x[:, first:],
            cls_attention=attention[..., first:],
            queries=queries[:, :, first:],
            keys=keys[:, :, first:],
        )

    def grid(self, images: Images) -> tuple[int, int]:
        """Return rows and columns of patches in images of this size.

        Raises:
            MidwayError: The sides are not multiples of the patch size.

        """
        return patch_grid(images, self.config.patch_size)

    def embed(self, images: Images) -> Tokens:
        """Return the tokens of whole images, ready for `run_blocks`."""
        grid = self.grid(images)
        return self.with_positions(self.patch_embed(images), grid)

    def with_positions(
        self, patches: Float[Tensor, "batch patches dim"], grid: tuple[int, int]
    ) -> Tokens:
        """Add positions to embedded patches, behind the class token and the registers.

        Args:
            patches: Output of `patch_embed`, of which a method may replace some by a mask token.
            grid: Rows and columns of patches.

        """
        cls = self.cls_token.expand(patches.shape[0], -1, -1)
        x = torch.cat([cls, patches], dim=1)  # (batch, 1 + patches, dim)
        if self.config.positions == "learned":
            table, config = self.pos_embed, self.config
            x = x + resample_positions(table, config.grid, grid, config.resampling)
        if not self.config.num_registers:
            return x
        # Registers have no position; they stand between class token and patches.
        registers = self.reg_token.expand(patches.shape[0], -1, -1)
        return torch.cat([x[:, :1], registers, x[:, 1:]], dim=1)

    def run_blocks(
        self,
        tokens: Tokens,
        levels: Sequence[int],
        grid: tuple[int, int] | None = None,
        *,
        norm: bool = True,
    ) -> list[Tokens]:
        """Return the tokens after the given blocks, normalised by the encoder's final norm.

        Args:
            tokens: Output of `embed` or `with_positions`; a method may drop patches from it.
            levels: As in `levels`.
            grid: Rows and columns of patches, if none were dropped; rotary positions need it.
            norm: If False, leave out the final norm.

        Raises:
            MidwayError: A level does not exist, or the grid is missing.

        """
        levels = self.resolved(levels)
        found: dict[int, Tensor] = {}
        rotation = self._rotation(tokens, grid)
        # Blocks above the highest level are not computed.
        for level, block in enumerate(self.blocks[: max(levels)], start=1):
            tokens = block(tokens, *rotation)
            if level in levels:
                found[level] = self.norm(tokens) if norm else tokens
        return [found[level] for level in levels]

    def _rotation(self, tokens: Tokens, grid: tuple[int, int] | None) -> tuple[Rotation, ...]:
        """Return the rotation as a further argument of the blocks; none for learned positions."""
        if self.config.positions == "learned":
            return ()
        if grid is None:
            raise MidwayError(
                "encoder: this method drops patches or reads attention, and rotary positions do "
                "not support that; give one with learned positions"
            )
        num_prefix, head_dim = 1 + self.config.num_registers, self.width // self.config.heads
        return (centred_rotation(grid, num_prefix, head_dim, tokens.device),)

    def _without_registers(self, x: Tensor) -> Tensor:
        if not self.config.num_registers:
            return x
        return torch.cat([x[:, :1], x[:, 1 + self.config.num_registers :]], dim=1)


def _block(config: EncoderConfig, drop_path: float) -> Block | RotaryBlock:
    is_rotary = config.positions == "rotary"
    make = partial(RotaryBlock, pairs="halves") if is_rotary else partial(Block, qkv_bias=True)
    return make(
        config.width,
        config.heads,
        norm_eps=config.norm_eps,
        drop_path=drop_path,
        layer_scale=config.layer_scale,
        swiglu=config.swiglu,
    )


ENCODER = VisionTransformer
