"""Masked autoencoder (MAE): reconstruct the pixels of masked patches of one frame."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from midway.config import check_at_least, require
from midway.data.views.boxes import Box
from midway.data.views.pair_crops import P_FLIP
from midway.data.views.render import Clips
from midway.data.views.spec import ClipSpec, Region, View
from midway.methods.base import About, Method, MethodConfig
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import NORM_EPS, EncoderConfig, VisionTransformer
from midway.nn.blocks import Block, Tokens, init_xavier
from midway.nn.linear import Linear
from midway.nn.losses.pixels import masked_mse, normalise_patches, patchify
from midway.nn.masking import (
    Index,
    Mask,
    count_masked,
    gather_tokens,
    kept_and_masked,
    random_mask,
    scatter_tokens,
)
from midway.nn.positions import grid_sinusoids
from midway.train.objective import StepOutput

TOKEN_STD = 0.02
"""Standard deviation of the initial class and mask tokens."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """Sizes of the decoder.

    The release has no ViT-S. The default keeps the proportions of its ViT-B: two thirds of the
    encoder's width, eight blocks, heads of 32 channels.
    """

    width: int = 256
    depth: int = 8
    heads: int = 8

    def __post_init__(self) -> None:
        check_at_least("decoder", self, width=1, depth=1, heads=1)
        rule = f"width = {self.width} is not a multiple of heads = {self.heads}; change one"
        require("decoder", {rule: self.width % self.heads == 0})


@dataclass(frozen=True, kw_only=True)
class MaeConfig(MethodConfig):
    """Configuration of the objective; the defaults are MAE's, for a ViT-S."""

    name: Literal["mae"] = "mae"
    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(drop_path=0.0, resampling="plain")
    )
    """Sizes of the encoder; the crop has its `image_size`."""
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
    mask_ratio: float = 0.75
    """Fraction of the patches that is masked, rounded down to whole patches."""
    crop_area: tuple[float, float] = (0.2, 1.0)
    """Area of the crop, as a fraction of the frame."""

    def __post_init__(self) -> None:
        patches = self.encoder.grid[0] * self.encoder.grid[1]
        rule = f"mask_ratio = {self.mask_ratio}; give one that masks some patches, but not all"
        require("method", {rule: 0 < count_masked(patches, self.mask_ratio) < patches})
        for name in ("encoder", "decoder"):
            width = getattr(self, name).width
            rule = f"{name}.width = {width}; give a multiple of 4, as fixed positions need"
            require("method", {rule: width % 4 == 0})

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: crops of 64 pixels, four blocks of width 96."""
        sizes = replace(EncoderConfig.tiny(), init_std=0.02)
        return cls(encoder=sizes, decoder=DecoderConfig(width=64, depth=2, heads=2))


class Decoder(nn.Module):
    """Transformer from the kept tokens to the pixels of the masked patches."""

    positions: Tensor

    def __init__(self, encoder: EncoderConfig, config: DecoderConfig) -> None:
        super().__init__()
        self.embed = Linear(encoder.width, config.width)
        # Two axes, as in the release: with one it would not be decayed.
        self.mask_token = nn.Parameter(torch.zeros(1, config.width))
        self.register_buffer(
            "positions", grid_sinusoids(encoder.grid, config.width), persistent=False
        )
        self.blocks = nn.ModuleList(
            Block(config.width, config.heads, qkv_bias=True, norm_eps=NORM_EPS)
            for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.predict = Linear(config.width, 3 * encoder.patch_size**2)

    def forward(self, cls: Tokens, patches: Tokens, kept: Index, masked: Index) -> Tensor:
        """Return the pixels of the masked patches, shape (batch, masked, pixels).

        Args:
            cls: Class tokens, shape (batch, 1, dim) in the encoder's width.
            patches: Kept patches, shape (batch, kept, dim).
            kept: Indices of the kept patches.
            masked: Indices of the masked patches.

        """
        number = kept.shape[1] + masked.shape[1]
        embedded = scatter_tokens(self.embed(patches), kept, self.mask_token[0], number)
        x = torch.cat([self.embed(cls), embedded], dim=1) + self.positions
        for block in self.blocks:
            x = block(x)
        # Nothing reads the pixels of kept patches.
        return self.predict(self.norm(gather_tokens(x[:, 1:], masked)))


class Mae(Method):
    """Masked autoencoder of single frames (He et al., MAE, CVPR 2022)."""

    Config: ClassVar[type[MethodConfig]] = MaeConfig
    about = About(
        paper="He et al., CVPR 2022, arXiv 2111.06377",
        code_licence="CC BY-NC 4.0",
        weights_licence="CC BY-NC 4.0",
        weights="ViT-B, L and H of the release, encoder alone or with the decoder",
        sample="1 frame",
        encoder_megaparameters=21.59,
        other_megaparameters=6.61,
        giga_multiply_adds=2.575,
        paper_giga_multiply_adds=None,
        activation_megabytes=53.8,
    )

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.config = config
        view = View(size=config.encoder.image_size, region="crop", p_flip=P_FLIP)
        self.spec = ClipSpec(
            regions={"crop": Region(box=Box(area=config.crop_area))}, views={"image": view}
        )
        self.encoder = VisionTransformer(config.encoder)
        self.decoder = Decoder(config.encoder, config.decoder)
        init_mae(self)
        # Fixed, but stored in the encoder's table, so that its file opens as any ViT.
        positions = grid_sinusoids(config.encoder.grid, config.encoder.width)
        self.encoder.pos_embed.requires_grad_(False).copy_(positions)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The student; there is no teacher."""
        return {"student": self.encoder}

    def loss(self, clips: Clips) -> StepOutput:
        """Return the error of the masked patches of a random crop of each frame."""
        images = clips.views["image"][0, 0]  # (batch, 3, height, width)
        patches = self.config.encoder.grid[0] * self.config.encoder.grid[1]
        mask = random_mask(len(images), patches, self.config.mask_ratio, images.device)
        return StepOutput(loss=self.reconstruction_loss(images, mask))

    def reconstruction_loss(self, images: Tensor, mask: Mask) -> Tensor:
        """Return the mean squared error of the normalised pixels of the masked patches.

        Args:
            images: ImageNet-normalised, shape (batch, 3, height, width).
            mask: Masks of `mask_ratio` of the patches.

        """
        kept, masked = kept_and_masked(mask, count_masked(mask.shape[1], self.config.mask_ratio))
        tokens = self.encoder.embed(images)  # class token, registers, then patches
        prefix, patches = tokens[:, : -mask.shape[1]], tokens[:, -mask.shape[1] :]
        seen = torch.cat([prefix, gather_tokens(patches, kept)], dim=1)
        features = self.encoder.run_blocks(seen, (-1,))[0]  # (batch, prefix + kept, dim)
        predicted = self.decoder(features[:, :1], features[:, prefix.shape[1] :], kept, masked)
        targets = normalise_patches(patchify(images, self.config.encoder.patch_size))
        return masked_mse(predicted, targets, masked)


def init_mae(module: nn.Module) -> None:
    """Initialise as MAE: linear layers and patch embedding by Xavier, tokens by a small normal.

    Args:
        module: Encoder and decoder; their norms remain as they are.

    """
    init_xavier(module)
    for name, parameter in module.named_parameters():
        if name.rpartition(".")[2] in ("cls_token", "mask_token", "reg_token"):
            nn.init.normal_(parameter, std=TOKEN_STD)


METHOD = Mae
