"""Layers of RAFT (Teed and Deng, 2020, appendix A), with torchvision's names of their tensors."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

STRIDE = 8
"""Stride of features and flow before upsampling, in pixels."""
LEVELS = 4
"""Levels of the correlation pyramid; the target is halved from one to the next."""
RADIUS = 4
"""Radius of the looked-up window, in cells of each level."""
HIDDEN = 128
"""Channels of the recurrent state, and of the context."""
WIDTHS = (64, 64, 96, 128, 256)
"""Channels of stem, three stages and output of both encoders."""


def _conv(
    channels: int,
    out: int,
    kernel: int,
    *,
    stride: int = 1,
    norm: type[nn.Module] | None = None,
    relu: bool = True,
) -> nn.Sequential:
    """Return a convolution that keeps the size, with the norm and the ReLU after it."""
    layers: list[nn.Module] = [nn.Conv2d(channels, out, kernel, stride, padding=kernel // 2)]
    if norm is not None:
        layers.append(norm(out))
    return nn.Sequential(*layers, *[nn.ReLU()] * relu)


class _ResidualBlock(nn.Module):
    def __init__(self, channels: int, out: int, norm: type[nn.Module], stride: int) -> None:
        super().__init__()
        self.convnormrelu1 = _conv(channels, out, 3, stride=stride, norm=norm)
        self.convnormrelu2 = _conv(out, out, 3, norm=norm)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1:
            self.downsample = _conv(channels, out, 1, stride=stride, norm=norm, relu=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.downsample(x) + self.convnormrelu2(self.convnormrelu1(x)))


class FeatureEncoder(nn.Module):
    """Encoder at a stride of 8 pixels, of features and of the context."""

    def __init__(self, norm: type[nn.Module]) -> None:
        super().__init__()
        stem, *stages, out = WIDTHS
        self.convnormrelu = _conv(3, stem, 7, stride=2, norm=norm)
        channels = stem
        for number, width in enumerate(stages, start=1):
            first = _ResidualBlock(channels, width, norm, stride=1 if number == 1 else 2)
            block = nn.Sequential(first, _ResidualBlock(width, width, norm, stride=1))
            self.add_module(f"layer{number}", block)
            channels = width
        self.conv = nn.Conv2d(channels, out, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """Return 256 channels at an eighth of the resolution."""
        x = self.convnormrelu(images)
        for number in range(1, len(WIDTHS) - 1):
            x = self.get_submodule(f"layer{number}")(x)
        return self.conv(x)


class _MotionEncoder(nn.Module):
    """Features of the looked-up correlation and of the current flow."""

    def __init__(self) -> None:
        super().__init__()
        self.convcorr1 = _conv(LEVELS * (2 * RADIUS + 1) ** 2, 256, 1)
        self.convcorr2 = _conv(256, 192, 3)
        self.convflow1 = _conv(2, 128, 7)
        self.convflow2 = _conv(128, 64, 3)
        self.conv = _conv(192 + 64, HIDDEN - 2, 3)

    def forward(self, seen: Tensor, flow: Tensor) -> Tensor:
        parts = self.convcorr2(self.convcorr1(seen)), self.convflow2(self.convflow1(flow))
        return torch.cat([self.conv(torch.cat(parts, dim=1)), flow], dim=1)


class _ConvGru(nn.Module):
    """Gated recurrent unit whose products are convolutions (section 3.3)."""

    def __init__(self, kernel: tuple[int, int]) -> None:
        super().__init__()
        padding = (kernel[0] // 2, kernel[1] // 2)
        self.convz = nn.Conv2d(3 * HIDDEN, HIDDEN, kernel, padding=padding)
        self.convr = nn.Conv2d(3 * HIDDEN, HIDDEN, kernel, padding=padding)
        self.convq = nn.Conv2d(3 * HIDDEN, HIDDEN, kernel, padding=padding)

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        both = torch.cat([hidden, x], dim=1)
        update, reset = self.convz(both).sigmoid(), self.convr(both).sigmoid()
        proposed = self.convq(torch.cat([reset * hidden, x], dim=1)).tanh()
        return torch.lerp(hidden, proposed, update)


class _Recurrent(nn.Module):
    """Two units in a row, horizontal then vertical."""

    def __init__(self) -> None:
        super().__init__()
        self.convgru1 = _ConvGru((1, 5))
        self.convgru2 = _ConvGru((5, 1))

    def forward(self, hidden: Tensor, x: Tensor) -> Tensor:
        return self.convgru2(self.convgru1(hidden, x), x)


class _FlowHead(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(HIDDEN, 256, 3, padding=1)
        self.conv2 = nn.Conv2d(256, 2, 3, padding=1)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.conv2(F.relu(self.conv1(hidden)))


class UpdateBlock(nn.Module):
    """One refinement: next state of the recurrent units, and the change of the flow."""

    def __init__(self) -> None:
        super().__init__()
        self.motion_encoder = _MotionEncoder()
        self.recurrent_block = _Recurrent()
        self.flow_head = _FlowHead()

    def forward(
        self, hidden: Tensor, context: Tensor, seen: Tensor, flow: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the next state and the change of the flow, of as many rows and columns."""
        x = torch.cat([context, self.motion_encoder(seen, flow)], dim=1)
        hidden = self.recurrent_block(hidden, x)
        return hidden, self.flow_head(hidden)


class MaskPredictor(nn.Module):
    """Logits of the weights by which flow is upsampled."""

    def __init__(self) -> None:
        super().__init__()
        self.convrelu = _conv(HIDDEN, 256, 3)
        self.conv = nn.Conv2d(256, 9 * STRIDE**2, kernel_size=1)

    def forward(self, hidden: Tensor) -> Tensor:
        """Return one logit per neighbour and pixel of a cell: 576 channels."""
        # Published weights were trained with this factor, which weakens the mask's gradients.
        return 0.25 * self.conv(self.convrelu(hidden))
