"""CroCo v2: complete a masked frame with the help of another one (cross-view completion)."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.config import require
from midway.data.sampling.loader import ClipBatch
from midway.data.views.boxes import Box
from midway.data.views.photometric import Photometric
from midway.data.views.render import Clips
from midway.data.views.spec import ClipSpec, Region, View
from midway.methods.base import About, Method, MethodConfig
from midway.models.encoders.base import Encoder, Images, patch_grid
from midway.models.encoders.croco import CrocoEncoder, CrocoEncoderConfig
from midway.models.pair_encoders.croco import CrocoDecoder, CrocoDecoderConfig
from midway.models.weights.pair import start_pair_encoder
from midway.nn.blocks import init_xavier
from midway.nn.linear import Linear
from midway.nn.losses.pixels import masked_mse, normalise_patches, patchify
from midway.nn.masking import (
    Mask,
    count_masked,
    gather_tokens,
    kept_and_masked,
    random_mask,
    scatter_tokens,
)
from midway.nn.rope import grid_positions
from midway.train.objective import StepOutput

HEALTH_PAIRS = 32
"""Largest number of pairs of a batch for health metrics."""
JITTER = Photometric(jitter=(0.4, 0.4, 0.4, 0.0), p_jitter=1.0, p_grey=0.0)


@dataclass(frozen=True, kw_only=True)
class CrocoConfig(MethodConfig):
    """Configuration of the objective; the defaults are the ViT-S of the paper's table 9."""

    name: Literal["croco"] = "croco"
    encoder: CrocoEncoderConfig = field(default_factory=CrocoEncoderConfig)
    decoder: CrocoDecoderConfig = field(default_factory=CrocoDecoderConfig)
    image_size: tuple[int, int] = (224, 224)
    """Height and width of the crops in pixels, multiples of the patch size."""
    mask_ratio: float = 0.9
    """Masked fraction of the first frame's patches, rounded down to whole patches."""
    common_area: tuple[float, float] = (0.2, 0.5)
    """Area of the square region that both crops come from, as a fraction of the frame's."""
    crop_side: float = 224 / 256
    """Side of a crop as a fraction of the common region's."""

    def __post_init__(self) -> None:
        patch = self.encoder.patch_size
        rows, columns = (side // patch for side in self.image_size)
        masked = count_masked(rows * columns, self.mask_ratio)
        rules = {
            f"image_size = {self.image_size}; give multiples of the patch size {patch}": all(
                side > 0 and side % patch == 0 for side in self.image_size
            ),
            f"mask_ratio = {self.mask_ratio}; give one that masks some patches and keeps some": (
                0 < masked < rows * columns
            ),
            f"crop_side = {self.crop_side}; give a fraction above 0, up to 1": (
                0 < self.crop_side <= 1
            ),
            f"decoder.encoder_width = {self.decoder.encoder_width}; give the encoder's width "
            f"{self.encoder.width}": self.decoder.encoder_width == self.encoder.width,
        }
        require("method", rules)

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: crops of 64 pixels, four blocks of width 96."""
        return cls(
            encoder=CrocoEncoderConfig(patch_size=8, width=96, depth=4, heads=3),
            decoder=CrocoDecoderConfig(encoder_width=96, width=64, depth=4, heads=2),
            image_size=(64, 64),
        )


VIT_B = CrocoEncoderConfig(width=768, heads=12)
VIT_L = CrocoEncoderConfig(width=1024, depth=24, heads=16)
SIZES = {
    "vits": CrocoConfig(),
    "vitb_small": CrocoConfig(
        encoder=VIT_B,
        decoder=CrocoDecoderConfig(encoder_width=768, width=512, depth=8, heads=16),
    ),
    "vitb_base": CrocoConfig(
        encoder=VIT_B, decoder=CrocoDecoderConfig(encoder_width=768, width=768, heads=12)
    ),
    "vitl_base": CrocoConfig(
        encoder=VIT_L, decoder=CrocoDecoderConfig(encoder_width=1024, width=768, heads=12)
    ),
}
"""The paper's ViT-S, and the published networks of CroCo v2 by encoder and decoder."""


class Croco(Method):
    """Cross-view completion (Weinzaepfel et al., CroCo v2, ICCV 2023), in one direction."""

    Config: ClassVar[type[MethodConfig]] = CrocoConfig
    about = About(
        paper="Weinzaepfel et al., ICCV 2023, arXiv 2211.10408",
        code_licence="CC BY-NC-SA 4.0",
        weights_licence="CC BY-NC-SA 4.0",
        weights="CroCo_V2_*.pth",
        sample="2 frames",
        encoder_megaparameters=21.59,
        other_megaparameters=7.35,
        giga_multiply_adds=6.84,
        paper_giga_multiply_adds=6.9,
        activation_megabytes=131.5,
    )

    def __init__(self, config: CrocoConfig) -> None:
        super().__init__()
        self.config = config
        square = (config.crop_side**2, config.crop_side**2)
        # The published pairs are squares of 256 pixels, of which crops of 224 are taken as they
        # are. The host shrinks a larger region to that size.
        region = Region(
            box=Box(area=config.common_area, aspect=(1, 1)),
            short_side=round(min(config.image_size) / config.crop_side),
        )
        crop = View(
            size=config.image_size,
            region="common",
            box=Box(area=square, aspect=(1, 1)),
            photometric=(JITTER,),
        )
        self.spec = ClipSpec(num_frames=2, regions={"common": region}, views={"pair": crop})
        self.encoder = CrocoEncoder(config.encoder)
        self.decoder = CrocoDecoder(config.decoder)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.decoder.width))
        nn.init.normal_(self.mask_token, std=0.02)
        self.prediction_head = Linear(config.decoder.width, 3 * config.encoder.patch_size**2)
        init_xavier(self.prediction_head)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The encoder; there is no teacher."""
        return {"student": self.encoder}

    @property
    def pair_encoder(self) -> CrocoDecoder:
        """The decoder, from which flow is finetuned (section 4.1)."""
        return self.decoder

    def start_from(self, network: str) -> None:
        """Load the encoder of a network, and its decoder if it is one of CroCo.

        Args:
            network: As for `--network`.

        Raises:
            MidwayError: No such network, or its sizes differ.

        """
        super().start_from(network)
        start_pair_encoder(network, self.decoder)

    def loss(self, clips: Clips) -> StepOutput:
        """Return the error of the masked patches of the first frame."""
        first, second = clips.views["pair"][:, 0]  # (batch, 3, height, width) each
        return StepOutput(loss=self.completion_loss(first, second, self.draw_mask(first)))

    def draw_mask(self, images: Images) -> Mask:
        """Draw a mask with the same number of patches in each image; True is masked."""
        rows, columns = patch_grid(images, self.encoder.stride)
        return random_mask(len(images), rows * columns, self.config.mask_ratio, images.device)

    def completion_loss(self, first: Images, second: Images, mask: Mask) -> Float[Tensor, ""]:
        """Return the mean squared error of the masked patches, normalised by patch.

        Args:
            first: Image to complete, ImageNet-normalised.
            second: Image of the same size, seen as a whole.
            mask: Output of `draw_mask`.

        """
        encoder, decoder, num_patches = self.encoder, self.decoder, mask.shape[1]
        positions = grid_positions(patch_grid(first, encoder.stride), first.device)
        kept, masked = kept_and_masked(mask, count_masked(num_patches, self.config.mask_ratio))
        # The encoder sees the kept patches only: (batch, 20, dim) of 196 in the paper.
        seen = gather_tokens(encoder.patch_embed(first), kept)
        seen = encoder.run_blocks(seen, positions[0, kept], (-1,))[0]
        memory = encoder.run_blocks(encoder.patch_embed(second), positions, (-1,))[0]
        tokens = scatter_tokens(
            decoder.decoder_embed(seen), kept, self.mask_token[0, 0], num_patches
        )
        completed = decoder(tokens, decoder.decoder_embed(memory), positions)[-1]
        predicted = self.prediction_head(gather_tokens(completed, masked))
        targets = normalise_patches(patchify(first, encoder.stride))
        return masked_mse(predicted, targets, masked)

    def health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return the loss divided by the loss with second frames of other samples.

        It is 1 for a network that ignores the second frame, and falls as it learns to use it.
        """
        first, second = batch.render(self.spec).views["pair"][:, 0, :HEALTH_PAIRS]
        mask = self.draw_mask(first)
        right = self.completion_loss(first, second, mask)
        wrong = self.completion_loss(first, second.roll(1, dims=0), mask)
        return {"loss_over_wrong_frame": right / wrong}


METHOD = Croco
