"""Patch features that need no training, as encoders: random filters, colours and pixels.

A network that has learnt to recognise must exceed all of them with the same readout.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, Images, Map
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD


@dataclass(frozen=True, kw_only=True)
class PatchFeaturesConfig:
    """Sizes of a baseline's patches."""

    patch_size: int = 8
    around: int = 0
    """Number of neighbouring patches on each side over which features are averaged."""


class PatchBaseline(Encoder):
    """Base of the baselines: one level, of features averaged over patches."""

    kind: ClassVar[str] = "baseline"
    Config: ClassVar[type] = PatchFeaturesConfig
    depth = 1

    def __init__(self, config: PatchFeaturesConfig) -> None:
        super().__init__()
        self.config = config
        self.stride = config.patch_size

    def pixels(self, images: Images) -> Tensor:
        """Return features of pixels (batch, width, rows, columns), at any stride."""
        raise NotImplementedError

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return the features of the patches, once per level."""
        self.resolved(levels)
        grid = images.shape[-2] // self.stride, images.shape[-1] // self.stride
        found = F.adaptive_avg_pool2d(self.pixels(images), grid)
        if around := self.config.around:
            found = F.avg_pool2d(
                F.pad(found, [around] * 4, mode="replicate"), 2 * around + 1, stride=1
            )
        return [found] * len(levels)

    def set_drop_path(self, p: float) -> None:
        """Raise an error: there is nothing to train."""
        raise MidwayError("drop path of a baseline: it has no blocks; give an encoder")


class FilterEnergies(PatchBaseline):
    """Log of the mean absolute response of random zero-mean filters, by default 96 of 7x7."""

    def __init__(
        self, config: PatchFeaturesConfig, *, count: int = 96, side: int = 7, seed: int = 0
    ) -> None:
        super().__init__(config)
        self.width = count
        generator = torch.Generator().manual_seed(seed)
        filters = torch.randn(count, 3, side, side, generator=generator)
        filters = filters - filters.mean((1, 2, 3), keepdim=True)
        filters = F.normalize(filters.flatten(1), dim=1).unflatten(1, (3, side, side))
        self.filters = nn.Parameter(filters, requires_grad=False)

    def pixels(self, images: Images) -> Tensor:
        """Return the absolute responses at every second pixel."""
        side = self.filters.shape[-1]
        return F.conv2d(images, self.filters, stride=2, padding=side // 2).abs()

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return the log of one plus the mean response."""
        return [each.log1p() for each in super().maps(images, levels)]


class ColourHistograms(PatchBaseline):
    """Share of pixels in each of `bins` cubed cells of RGB."""

    def __init__(self, config: PatchFeaturesConfig, *, bins: int = 4) -> None:
        super().__init__(config)
        self.bins, self.width = bins, bins**3
        statistics = torch.tensor([IMAGENET_MEAN, IMAGENET_STD])[..., None, None]
        self.statistics = nn.Parameter(statistics, requires_grad=False)  # (2, 3, 1, 1)

    def pixels(self, images: Images) -> Tensor:
        """Return the cell of each pixel, one-hot."""
        mean, std = self.statistics
        levels = ((images * std + mean) * self.bins).floor().clamp(0, self.bins - 1)
        red, green, blue = levels.long().unbind(1)
        cell = (red * self.bins + green) * self.bins + blue
        return F.one_hot(cell, self.width).permute(0, 3, 1, 2).to(images)


class PixelPatches(PatchBaseline):
    """Pixels of the patch, in raster order."""

    def __init__(self, config: PatchFeaturesConfig) -> None:
        super().__init__(config)
        self.width = 3 * config.patch_size**2
        # Readouts take device and dtype from a parameter.
        self.scale = nn.Parameter(torch.ones(()), requires_grad=False)

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return the pixels of the patches, once per level."""
        self.resolved(levels)
        return [F.pixel_unshuffle(images * self.scale, self.stride)] * len(levels)


def baselines(patch_size: int, seed: int = 0) -> dict[str, Encoder]:
    """Return the baselines by name, for patches of a size and filters of a seed."""
    plain = PatchFeaturesConfig(patch_size=patch_size)
    wide = PatchFeaturesConfig(patch_size=patch_size, around=1)
    return {
        "filters": FilterEnergies(plain, seed=seed),
        "filters-3x3": FilterEnergies(wide, seed=seed),
        "colours": ColourHistograms(plain),
    }
