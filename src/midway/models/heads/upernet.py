"""Readout heads for segmentation: linear, and UperNet.

UperNet (Xiao et al., 2018) follows mmsegmentation. It reads the four stages of an encoder that has
them, or iBOT's pyramid of the maps of a plain ViT.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.errors import MidwayError

Map = Float[Tensor, "batch channels rows columns"]
POOL_SIZES = (1, 2, 3, 6)
"""Output sizes of the pyramid pooling."""
NUM_MAPS = 4
"""Number of feature maps of UperNet, from low to high."""
DROPOUT = 0.1
AUXILIARY_MAP = 2
"""Index of the auxiliary head's map: that at the stride of a plain ViT."""
AUXILIARY_CHANNELS = 256
PYRAMID_HEAD_WIDTH = 512
"""Channels of the head for an encoder with stages, as in mmsegmentation."""
CLASSIFIER_STD = 0.01


class LinearReadout(nn.Module):
    """Linear head of iBOT and FlowE: a 1x1 convolution from the concatenated maps to logits.

    Args:
        channels: Channels of all maps together.
        num_classes: Number of classes.

    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.classifier = _classifier(channels, num_classes)

    def forward(self, maps: Sequence[Map]) -> tuple[Map, ...]:
        """Return the logits at the resolution of the finest map, as a tuple of one."""
        return (self.classifier(torch.cat(at_one_size(maps), dim=1)),)


class UperNet(nn.Module):
    """UperNet: pyramid pooling on the coarsest map, a feature pyramid, and a classifier.

    Args:
        width: Channels of a plain encoder's maps, which have one stride, and of the head.
        num_classes: Number of classes.
        widths: Channels of the maps of an encoder with stages; the head then has
            `PYRAMID_HEAD_WIDTH` channels.

    """

    def __init__(self, width: int, num_classes: int, widths: Sequence[int] | None = None) -> None:
        super().__init__()
        self.pyramid = Pyramid(width) if widths is None else nn.Identity()
        if widths is None:
            widths = [width] * NUM_MAPS
        else:
            width = PYRAMID_HEAD_WIDTH
        top = widths[-1]
        self.pooled = nn.ModuleList(
            nn.Sequential(nn.AdaptiveAvgPool2d(size), ConvNormRelu(top, width, 1))
            for size in POOL_SIZES
        )
        self.bottleneck = ConvNormRelu(top + len(POOL_SIZES) * width, width, 3)
        # The coarsest map has the bottleneck instead of a lateral convolution.
        finer = range(NUM_MAPS - 1)
        self.laterals = nn.ModuleList(ConvNormRelu(widths[index], width, 1) for index in finer)
        self.outputs = nn.ModuleList(ConvNormRelu(width, width, 3) for _ in finer)
        self.fusion = ConvNormRelu(NUM_MAPS * width, width, 3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = _classifier(width, num_classes)
        self.auxiliary = AuxiliaryHead(widths[AUXILIARY_MAP], num_classes)

    def forward(self, maps: Sequence[Map]) -> tuple[Map, ...]:
        """Return the logits at the resolution of the finest map; in training also auxiliary ones.

        For a plain encoder, that is 4 cells per patch.

        Args:
            maps: Four maps of the encoder, from low to high.

        Raises:
            MidwayError: Maps of a plain encoder have a side of one patch, too small to pool.

        """
        rows, columns = maps[0].shape[-2:]
        if isinstance(self.pyramid, Pyramid) and min(rows, columns) < 2:
            raise MidwayError(
                f"UperNet: maps of {rows}x{columns} patches are below 2x2; take larger images, "
                "crops or windows"
            )
        pyramid = self.pyramid(maps)
        logits = self.classifier(self.dropout(self.fuse(pyramid)))
        # The auxiliary loss is a training signal only.
        if not self.training:
            return (logits,)
        return logits, self.auxiliary(pyramid[AUXILIARY_MAP])

    def fuse(self, pyramid: Sequence[Map]) -> Map:
        """Return the input of the classifier, at the resolution of the finest map."""
        coarsest = pyramid[-1]
        # Pyramid pooling: (batch, width, size, size), resized to the coarsest map.
        pooled = [_resized(pool(coarsest), coarsest) for pool in self.pooled]
        path = [lateral(x) for lateral, x in zip(self.laterals, pyramid, strict=False)]
        path.append(self.bottleneck(torch.cat([coarsest, *pooled], dim=1)))
        # Top-down path: add each map to the next finer one.
        for index in reversed(range(len(self.laterals))):
            path[index] = path[index] + _resized(path[index + 1], path[index])
        outputs = [output(x) for output, x in zip(self.outputs, path, strict=False)] + path[-1:]
        # (batch, 4 * width, rows, columns) of the finest map -> (batch, width, rows, columns)
        return self.fusion(torch.cat([_resized(x, outputs[0]) for x in outputs], dim=1))


class Pyramid(nn.Module):
    """iBOT's pyramid of four maps of one stride, resized by factors of 4, 2, 1 and 1/2."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.scales = nn.ModuleList(
            [
                nn.Sequential(_doubled(width), nn.BatchNorm2d(width), nn.GELU(), _doubled(width)),
                _doubled(width),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        )

    def forward(self, maps: Sequence[Map]) -> list[Map]:
        """Return one map per scale, channels unchanged."""
        return [scale(x) for scale, x in zip(self.scales, maps, strict=True)]


class AuxiliaryHead(nn.Module):
    """Fully convolutional auxiliary head on an intermediate map."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.conv = ConvNormRelu(width, AUXILIARY_CHANNELS, 3)
        self.dropout = nn.Dropout2d(DROPOUT)
        self.classifier = _classifier(AUXILIARY_CHANNELS, num_classes)

    def forward(self, x: Map) -> Map:
        """Return the logits at the resolution of `x`."""
        return self.classifier(self.dropout(self.conv(x)))


class ConvNormRelu(nn.Module):
    """Convolution without bias at constant size, batch norm and ReLU."""

    def __init__(self, channels: int, out_channels: int, kernel: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, out_channels, kernel, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(out_channels)
        nn.init.kaiming_normal_(self.conv.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Map) -> Map:
        """Return the transformed map, of the same size."""
        return F.relu(self.norm(self.conv(x)))


def at_one_size(maps: Sequence[Map]) -> list[Map]:
    """Resize all maps to the size of the largest."""
    finest = max(maps, key=lambda x: x.shape[-2] * x.shape[-1])
    return [x if x.shape[-2:] == finest.shape[-2:] else _resized(x, finest) for x in maps]


def _doubled(width: int) -> nn.ConvTranspose2d:
    return nn.ConvTranspose2d(width, width, kernel_size=2, stride=2)


def _classifier(channels: int, num_classes: int) -> nn.Conv2d:
    conv = nn.Conv2d(channels, num_classes, kernel_size=1)
    nn.init.normal_(conv.weight, std=CLASSIFIER_STD)
    nn.init.zeros_(conv.get_parameter("bias"))
    return conv


def _resized(x: Map, like: Map) -> Map:
    return F.interpolate(x, like.shape[-2:], mode="bilinear")
