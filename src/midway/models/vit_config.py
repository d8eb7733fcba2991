"""Sizes of the vision transformer that Midway trains, and variants of it in published weights."""

from dataclasses import dataclass
from typing import Literal, Self

from midway.config import check_at_least, check_at_most
from midway.errors import MidwayError
from midway.nn.embed import Colours, Resampling
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD

NORM_EPS = 1e-6
TINY_STD = 0.04
"""Standard deviation of the initial weights of `EncoderConfig.tiny`. With 0.02, each of its narrow
blocks would be close to the identity."""
MAX_SIDE = 2**15
"""Largest side of the images of a position table, in pixels."""


@dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """Sizes of the encoder; the defaults are ViT-S/16 at 224."""

    image_size: tuple[int, int] = (224, 224)
    """Height and width of the position table, in pixels; other sizes are resampled."""
    patch_size: int = 16
    width: int = 384
    depth: int = 12
    heads: int = 6
    num_registers: int = 0
    """Number of register tokens; no output contains them."""
    drop_path: float = 0.1
    """Stochastic depth of the last block in training; linear from 0 in the first block."""
    layer_scale: bool = False
    """If True, the branches of each block have learned factors, as in DINOv2."""
    swiglu: int = 0
    """Hidden channels of MLPs with a gate, as in DINOv2 g; 0 for the usual MLP of ratio 4."""
    norm_eps: float = NORM_EPS
    """Epsilon of all layer norms."""
    positions: Literal["learned", "rotary"] = "learned"
    """A table that is added to the patches, or rotations in the attention, as in DINOv3."""
    resampling: Resampling = "offset"
    """Interpolation of the position table for images of another size."""
    mean: Colours = IMAGENET_MEAN
    """Mean of the normalisation in training; callers give ImageNet-normalised images anyway."""
    std: Colours = IMAGENET_STD
    """Standard deviation of the normalisation in training."""

    init_std: float = 0.02
    """Standard deviation of the initial weights of linear layers."""
    sincos_positions: bool = False
    """If True, initialise positions as sine-cosine waves, not as noise (`midway.nn.mimetic`)."""
    whitened_patches: bool = False
    """If True, initialise the patch embedding with cosine waves whose gains flatten the spectrum of
    photographs, not with noise (`midway.nn.mimetic`)."""

    def __post_init__(self) -> None:
        check_at_least("encoder", self, patch_size=1, width=1, depth=1, heads=1, num_registers=0)
        check_at_least("encoder", self, swiglu=0)
        check_at_most("encoder", self, swiglu=2**18)
        check_at_most(
            *("encoder", self), patch_size=1024, width=2**16, depth=256, num_registers=4096
        )
        if max(self.image_size) > MAX_SIDE:
            raise MidwayError(
                f"encoder: image_size {self.image_size} is too large; give {MAX_SIDE} or less"
            )
        if not (min(self.std) > 0 and 0 < self.norm_eps < 1):
            raise MidwayError(
                f"encoder: std {self.std} and norm_eps {self.norm_eps} must be above 0; change them"
            )
        if not 0 <= self.drop_path < 1:
            raise MidwayError(
                f"encoder: drop_path {self.drop_path} is out of range; give a value in [0, 1)"
            )
        if self.width % self.heads:
            raise MidwayError(
                f"encoder: width {self.width} is not a multiple of heads {self.heads}; change one"
            )
        if self.sincos_positions and self.width % 4:
            raise MidwayError(
                f"encoder: width {self.width} is not a multiple of 4, as sincos_positions needs; "
                "change one"
            )
        if self.positions == "rotary" and (self.width // self.heads % 4 or self.sincos_positions):
            raise MidwayError(
                f"encoder: rotary positions need a multiple of 4 channels per head, not "
                f"{self.width // self.heads}, and exclude sincos_positions; change one"
            )
        if any(side < 1 or side % self.patch_size for side in self.image_size):
            raise MidwayError(
                f"encoder: image_size {self.image_size} is not a multiple of patch_size "
                f"{self.patch_size}; change one"
            )

    @classmethod
    def tiny(cls) -> Self:
        """Return a ViT for small studies: 64 pixels, 8-pixel patches, four blocks of width 96."""
        return cls(
            image_size=(64, 64),
            patch_size=8,
            width=96,
            depth=4,
            heads=3,
            drop_path=0.0,
            init_std=TINY_STD,
        )

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches in the position table."""
        return self.image_size[0] // self.patch_size, self.image_size[1] // self.patch_size
