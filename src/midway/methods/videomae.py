"""VideoMAE: reconstruct the masked cuboids of a clip from the visible tenth."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.config import check_at_least, check_at_most, require
from midway.data.views.boxes import Box
from midway.data.views.render import Clips
from midway.data.views.spec import ClipSpec, Region, View
from midway.methods.base import About, Method, MethodConfig
from midway.models.encoders.base import Encoder
from midway.models.encoders.videomae import (
    Frames,
    VideoMaeBlock,
    VideoMaeEncoder,
    VideoMaeEncoderConfig,
)
from midway.models.encoders.vit import NORM_EPS
from midway.nn.blocks import Tokens, init_xavier
from midway.nn.images import denormalise
from midway.nn.linear import Linear
from midway.nn.losses.pixels import masked_mse, normalise_patches_by_colour, patchify_clip
from midway.nn.masking import Mask, count_masked, gather_tokens, kept_and_masked, tube_mask
from midway.nn.positions import line_sinusoids
from midway.train.objective import StepOutput


@dataclass(frozen=True, kw_only=True)
class VideoMaeDecoderConfig:
    """Sizes of the decoder; the defaults are the published ones for a ViT-S."""

    width: int = 192
    depth: int = 4
    heads: int = 3

    def __post_init__(self) -> None:
        check_at_least("decoder", self, width=1, depth=1, heads=1)
        check_at_most("decoder", self, width=2**16, depth=256)
        rule = f"width {self.width}: not a multiple of 2 and of heads {self.heads}; change one"
        holds = self.width % self.heads == 0 and self.width % 2 == 0
        require("", {f"decoder: {rule}": holds})


@dataclass(frozen=True, kw_only=True)
class VideoMaeConfig(MethodConfig):
    """Configuration of the objective; the defaults are the published ViT-S."""

    name: Literal["videomae"] = "videomae"
    encoder: VideoMaeEncoderConfig = field(default_factory=VideoMaeEncoderConfig)
    """Its image size and number of frames are those of the clips."""
    decoder: VideoMaeDecoderConfig = field(default_factory=VideoMaeDecoderConfig)
    mask_ratio: float = 0.9
    """Masked fraction of the patches of a slice, the same ones in all slices; rounded down."""
    crop_area: tuple[float, float] = (0.25, 0.56)
    """Area of the crop of a clip as a fraction of the frame's. Sides of 0.66 to 1 times the shorter
    side of a 16:9 frame, as in the published recipe, are about these fractions."""

    def __post_init__(self) -> None:
        rows, columns = self.encoder.grid
        masked = count_masked(rows * columns, self.mask_ratio)
        rule = f"mask_ratio = {self.mask_ratio}; give one that masks some patches and keeps some"
        require("method", {rule: 0 < masked < rows * columns})

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: four frames of 64 pixels, four blocks of width 96."""
        return cls(
            encoder=VideoMaeEncoderConfig(
                image_size=(64, 64), num_frames=4, patch_size=8, width=96, depth=4, heads=3
            ),
            decoder=VideoMaeDecoderConfig(width=64, depth=2, heads=2),
        )


class Decoder(nn.Module):
    """Transformer from visible and masked tokens to the pixels of the masked ones.

    Its parameters have the names of the published files.
    """

    def __init__(self, config: VideoMaeDecoderConfig, num_outputs: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            VideoMaeBlock(config.width, config.heads) for _ in range(config.depth)
        )
        self.norm = nn.LayerNorm(config.width, eps=NORM_EPS)
        self.head = Linear(config.width, num_outputs)

    def forward(self, tokens: Tokens, num_masked: int) -> Float[Tensor, "batch masked pixels"]:
        """Return the pixels of the last `num_masked` tokens."""
        for block in self.blocks:
            tokens = block(tokens)
        return self.head(self.norm(tokens[:, -num_masked:]))


class VideoMae(Method):
    """Masked autoencoder of clips (Tong et al., VideoMAE, NeurIPS 2022)."""

    Config: ClassVar[type[MethodConfig]] = VideoMaeConfig
    about = About(
        paper="Tong et al., NeurIPS 2022, arXiv 2203.12602",
        code_licence="CC BY-NC 4.0",
        weights_licence="CC BY-NC 4.0",
        weights="checkpoint.pth of pretraining",
        sample="16 frames",
        encoder_megaparameters=21.88,
        other_megaparameters=2.15,
        giga_multiply_adds=11.54,
        paper_giga_multiply_adds=11.6,
        activation_megabytes=281.9,
    )
    decoder_table: Tensor

    def __init__(self, config: VideoMaeConfig) -> None:
        super().__init__()
        self.config = config
        encoder, width = config.encoder, config.decoder.width
        # The published crop has sides of 0.66 to 1 times the shorter side, in steps that differ by
        # one at most between height and width: no aspect ratio beyond 7 / 6.
        region = Region(
            box=Box(area=config.crop_area, aspect=(6 / 7, 7 / 6)),
            short_side=min(encoder.image_size),
        )
        self.spec = ClipSpec(
            num_frames=encoder.num_frames,
            regions={"crop": region},
            views={"clip": View(size=encoder.image_size, region="crop", aligned=True)},
        )
        self.encoder = VideoMaeEncoder(encoder)
        self.encoder_to_decoder = Linear(encoder.width, width, bias=False)
        self.decoder = Decoder(config.decoder, 3 * encoder.tubelet * encoder.patch_size**2)
        rows, columns = encoder.grid
        table = line_sinusoids(encoder.num_slices * rows * columns, width)
        self.register_buffer("decoder_table", table, persistent=False)
        # A single axis excludes it from weight decay, as in the published recipe.
        self.mask_token = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.mask_token, std=0.02)
        for part in (self.encoder_to_decoder, self.decoder):
            init_xavier(part)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The encoder; there is no teacher."""
        return {"student": self.encoder}

    def loss(self, clips: Clips) -> StepOutput:
        """Return the error of the masked cuboids."""
        # (frames, 1 crop, batch, 3, height, width) -> (batch, frames, 3, height, width)
        frames = clips.views["clip"][:, 0].transpose(0, 1)
        return StepOutput(loss=self.reconstruction_loss(frames, self.draw_mask(frames)))

    def draw_mask(self, frames: Frames) -> Mask:
        """Draw a tube mask for each clip: True where a cuboid is masked, equal in all slices."""
        rows, columns = self.config.encoder.grid
        num_slices, ratio = self.config.encoder.num_slices, self.config.mask_ratio
        return tube_mask(len(frames), num_slices, rows * columns, ratio, frames.device)

    def reconstruction_loss(self, frames: Frames, mask: Mask) -> Float[Tensor, ""]:
        """Return the mean squared error of the masked cuboids, normalised by cuboid and colour.

        Args:
            frames: ImageNet-normalised clips.
            mask: Output of `draw_mask`.

        """
        encoder, sizes = self.encoder, self.config.encoder
        rows, columns = sizes.grid
        num_masked = sizes.num_slices * count_masked(rows * columns, self.config.mask_ratio)
        kept, masked = kept_and_masked(mask, num_masked)
        # The encoder sees the kept cuboids only: (batch, 160, dim) of 1568 in the paper.
        seen = encoder.run_blocks(gather_tokens(encoder.embed(frames), kept), (-1,))[0]
        seen = self.encoder_to_decoder(seen)
        kept_at, masked_at = (
            gather_tokens(self.decoder_table.expand(len(frames), -1, -1), index)
            for index in (kept, masked)
        )
        # Masked tokens come last; positions, not the order, say where a token stands.
        tokens = torch.cat([seen + kept_at, self.mask_token + masked_at], dim=1)
        predicted = self.decoder(tokens, num_masked)
        # Normalised by cuboid and colour, only the epsilon depends on the unit of the pixels.
        cuboids = patchify_clip(denormalise(frames), sizes.patch_size, length=sizes.tubelet)
        return masked_mse(predicted, normalise_patches_by_colour(cuboids), masked)


METHOD = VideoMae
