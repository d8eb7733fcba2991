"""ResNet with bottlenecks (He et al., 2016; version 1.5), with torchvision's parameter names."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, Images, Map
from midway.nn.compilation import Region

EXPANSION = 4
"""Ratio of the output channels of a bottleneck to its inner channels."""
NUM_STAGES = 4
MAX_BLOCKS, MAX_WIDTH = 1024, 4096


@dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Sizes of the encoder; the defaults are ResNet-50."""

    blocks: tuple[int, int, int, int] = (3, 4, 6, 3)
    """Number of bottlenecks in each stage."""
    width: int = 64
    """Channels of the stem and inside the first stage; they double with each further stage."""

    def __post_init__(self) -> None:
        if min(*self.blocks, self.width) < 1:
            raise MidwayError(
                f"encoder: blocks {self.blocks} and width {self.width} must all be 1 or more; "
                "raise those below 1"
            )
        if max(self.blocks) > MAX_BLOCKS or self.width > MAX_WIDTH:
            raise MidwayError(
                f"encoder: blocks {self.blocks} or width {self.width} are too large; give at most "
                f"{MAX_BLOCKS} and {MAX_WIDTH}"
            )


class ResNet(Encoder):
    """ResNet without pooling and classifier; its levels are the four stages.

    Its `state_dict` has the names of torchvision's `resnet50`, without ``fc``.
    """

    kind = "resnet"
    has_final_norm = False
    Config: ClassVar[type] = ResNetConfig
    config: ResNetConfig

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        self.config = config
        self.depth = NUM_STAGES
        self.stride = self.strides((-1,))[0]
        self.width = self.widths((-1,))[0]
        self.conv1 = nn.Conv2d(3, config.width, kernel_size=7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(config.width)
        channels = config.width
        for stage, count in enumerate(config.blocks):
            inner = config.width << stage
            layers = []
            for number in range(count):
                # Stages 2 to 4 halve the resolution in their first bottleneck.
                stride = 2 if stage > 0 and number == 0 else 1
                layers.append(Bottleneck(channels, inner, stride))
                channels = EXPANSION * inner
            self.add_module(f"layer{stage + 1}", nn.Sequential(*layers))
        init_convolutions(self)

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return the maps of stages 1 to 4, at strides of 4, 8, 16 and 32 pixels."""
        levels = self.resolved(levels)
        height, width = images.shape[-2:]
        if height % self.stride or width % self.stride:
            raise MidwayError(
                f"image of {height}x{width} pixels: sides must be multiples of {self.stride}; crop "
                "or resize it"
            )
        x = F.relu(self.bn1(self.conv1(images)))  # (batch, 64, height / 2, width / 2)
        # Pooling makes it (batch, 64, height / 4, width / 4).
        x = F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
        found: dict[int, Tensor] = {}
        for level in range(1, max(levels) + 1):
            # (batch, 256 * 2^(level - 1), height / 2^(level + 1), width / 2^(level + 1))
            x = found[level] = self.get_submodule(f"layer{level}")(x)
        return [found[level] for level in levels]

    def forward(self, images: Images) -> Float[Tensor, "batch dim"]:
        """Return the mean of the top map, one vector per image."""
        return self.maps(images, (-1,))[0].mean((2, 3))

    def widths(self, levels: Sequence[int]) -> list[int]:
        """Return the channels of the maps at these levels: 256 to 2048 in a ResNet-50."""
        return [EXPANSION * self.config.width << level - 1 for level in self.resolved(levels)]

    def strides(self, levels: Sequence[int]) -> list[int]:
        """Return the strides of the maps at these levels in pixels: 4, 8, 16 and 32."""
        return [2 << level for level in self.resolved(levels)]

    def set_drop_path(self, p: float) -> None:
        """Raise an error unless `p` is 0.

        Raises:
            MidwayError: `p` is not 0.

        """
        # With stochastic depth, batch norms would see the kept samples only.
        if p:
            raise MidwayError(
                f"drop path {p}: a ResNet has no stochastic depth; give --readout.drop-path 0"
            )

    def layer_of(self, name: str) -> int:
        """Return the layer of a parameter for layer decay: 0 for the stem, then the stages."""
        found = re.match(r"layer(\d)\.", name)
        return int(found[1]) if found else 0

    @classmethod
    def read_config(
        cls, tensors: Mapping[str, Tensor], *, heads: int | None = None
    ) -> ResNetConfig | None:
        """Infer the sizes from tensors with torchvision's names; `heads` is ignored."""
        found = {
            (int(match[1]), int(match[2]))
            for name in tensors
            if (match := re.match(r"layer([1-4])\.(\d+)\.conv3\.weight", name))
        }
        blocks = [sum(stage == each for each, _ in found) for stage in range(1, NUM_STAGES + 1)]
        if "conv1.weight" not in tensors or not all(blocks):
            return None
        first, second, third, fourth = blocks
        return ResNetConfig(
            blocks=(first, second, third, fourth), width=tensors["conv1.weight"].shape[0]
        )


def init_convolutions(module: nn.Module) -> None:
    """Draw the weights of all convolutions as torchvision does: He's normal, by fan-out."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")


class Bottleneck(Region):
    """Residual block of three convolutions; the second one has the stride (version 1.5).

    With `run.recompute`, the running statistics of its batch norms move twice in a step.

    Args:
        channels: Channels of the input.
        inner: Channels between the convolutions.
        stride: Stride of the second one.
        outer: Channels of the output; `EXPANSION` times the inner ones if None.

    """

    def __init__(
        self, channels: int, inner: int, stride: int = 1, *, outer: int | None = None
    ) -> None:
        super().__init__()
        outer = EXPANSION * inner if outer is None else outer
        self.conv1 = nn.Conv2d(channels, inner, kernel_size=1, bias=False)
        self.bn1 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, outer, kernel_size=1, bias=False)
        self.bn3 = nn.BatchNorm2d(outer)
        self.downsample = None
        if stride != 1 or channels != outer:
            self.downsample = nn.Sequential(
                nn.Conv2d(channels, outer, kernel_size=1, stride=stride, bias=False),
                nn.BatchNorm2d(outer),
            )

    def forward(self, x: Map) -> Map:
        """Return the refined map, `stride` times coarser."""
        y = F.relu(self.bn1(self.conv1(x)))  # inner channels
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))  # outer channels
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


ENCODER = ResNet
