"""Encoder with PooDLe's spatial decoder, which adds finer maps to the upsampled top map."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.config import require
from midway.models.encoders.base import Encoder, Images, Map
from midway.models.encoders.resnet import Bottleneck, ResNet, ResNetConfig, init_convolutions
from midway.models.encoders.vit import EncoderConfig, VisionTransformer

BACKBONE = "backbone."


@dataclass(frozen=True, kw_only=True)
class SpatialDecoderConfig:
    """Sizes of backbone and decoder; the defaults are those of table 9."""

    backbone: Literal["resnet", "vit"] = "resnet"
    resnet: ResNetConfig = field(default_factory=ResNetConfig)
    """Sizes of a ResNet; not used with a ViT."""
    vit: EncoderConfig = field(default_factory=EncoderConfig)
    """Sizes of a ViT; not used with a ResNet."""
    laterals: tuple[int, ...] = (3, 2)
    """Levels of the backbone that the decoder adds, one after each doubling of the resolution."""
    factor: float = 1.0
    """Factor on the inner channels of the decoder's blocks, which are a quarter of the backbone's
    width; 0.5 in PooDLe's configurations."""

    def __post_init__(self) -> None:
        rules = {
            "laterals is empty; give one level or more": bool(self.laterals),
            f"factor = {self.factor}; give above 0, and at most 16": 0 < self.factor <= 16,
        }
        require("encoder", rules)


class SpatialDecoder(Encoder):
    """Backbone and decoder; its levels are those of the backbone, then the decoded map.

    A ResNet-50 of stride 32 has a decoded map of stride 8 (5 levels), with as many channels
    as the top map.
    """

    kind = "poodle"
    has_final_norm = False
    Config: ClassVar[type] = SpatialDecoderConfig
    config: SpatialDecoderConfig

    def __init__(self, config: SpatialDecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone: Encoder = (
            ResNet(config.resnet) if config.backbone == "resnet" else VisionTransformer(config.vit)
        )
        self.depth = self.backbone.depth + 1
        self.stride = self.backbone.stride
        self.width = width = self.backbone.width
        inner = max(1, round(width // 4 * config.factor))
        self.blocks = nn.ModuleList(Bottleneck(width, inner, outer=width) for _ in config.laterals)
        self.laterals = nn.ModuleList(
            nn.Conv2d(channels, width, kernel_size=1)
            for channels in self.backbone.widths(config.laterals)
        )
        init_convolutions(self.blocks)

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return maps of the backbone, and the decoded map at the top level."""
        levels, top = self.resolved(levels), self.depth - 1
        if self.depth not in levels:
            return self.backbone.maps(images, levels)
        asked = [level for level in levels if level <= top]
        x, *found = self.backbone.maps(images, (top, *self.config.laterals, *asked))
        laterals, found = found[: len(self.laterals)], found[len(self.laterals) :]
        for block, lateral, finer in zip(self.blocks, self.laterals, laterals, strict=True):
            # (batch, width, rows, columns) -> (batch, width, 2 * rows, 2 * columns)
            x = F.interpolate(block(x), scale_factor=2, mode="bilinear")
            y = lateral(finer)
            # The maps of a ViT have one stride, so that they are upsampled too.
            x = x + (y if y.shape == x.shape else F.interpolate(y, x.shape[2:], mode="bilinear"))
        rest = iter(found)
        return [x if level == self.depth else next(rest) for level in levels]

    def forward(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return the pooled features of the backbone, which the decoder does not change."""
        return self.backbone(images)

    def widths(self, levels: Sequence[int]) -> list[int]:
        """Return the channels of the maps at these levels."""
        inner = [min(level, self.depth - 1) for level in self.resolved(levels)]
        return self.backbone.widths(inner)

    def strides(self, levels: Sequence[int]) -> list[int]:
        """Return the strides of the maps at these levels, in pixels per cell."""
        decoded = self.backbone.strides((-1,))[0] >> len(self.laterals)
        return [
            decoded if level == self.depth else self.backbone.strides((level,))[0]
            for level in self.resolved(levels)
        ]

    def set_drop_path(self, p: float) -> None:
        """Set stochastic depth of the backbone.

        Raises:
            MidwayError: The backbone is a ResNet, and `p` is not 0.

        """
        self.backbone.set_drop_path(p)

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter for layer decay; the decoder is above the backbone."""
        if name.startswith(BACKBONE):
            return self.backbone.layer_of(name.removeprefix(BACKBONE))
        return self.depth

    @classmethod
    def read_config(
        cls, tensors: Mapping[str, Tensor], *, heads: int | None = None
    ) -> SpatialDecoderConfig | None:
        """Infer the sizes from the tensors of a decoder of ours on a ResNet."""
        found = {n.removeprefix(BACKBONE): t for n, t in tensors.items() if n.startswith(BACKBONE)}
        resnet = ResNet.read_config(found)
        channels = {
            int(match[1]): tensor.shape[1]
            for name, tensor in tensors.items()
            if tensor.ndim == 4 and (match := re.fullmatch(r"laterals\.(\d+)\.weight", name))
        }
        inner = tensors.get("blocks.0.conv1.weight")
        if resnet is None or inner is None or not channels or inner.ndim != 4:
            return None
        # Stage s has 4 * width * 2^(s - 1) channels.
        first = 4 * resnet.width
        laterals = tuple((channels[n] // first).bit_length() for n in sorted(channels))
        return SpatialDecoderConfig(
            resnet=resnet, laterals=laterals, factor=inner.shape[0] / (2 * first)
        )


ENCODER = SpatialDecoder
