"""DPT head: dense regression from four token maps of a plain ViT (Ranftl et al., ICCV 2021).

The maps become a pyramid of 4, 2, 1 and 1/2 cells per patch, fused from coarse to fine. Sizes are
those of CroCo v2's published code.
"""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.errors import MidwayError


class ResidualUnit(nn.Module):
    """Pre-activation residual unit of two 3x3 convolutions, without normalisation."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width, width, 3, padding=1)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        """Refine a map; shape unchanged."""
        return x + self.conv2(F.relu(self.conv1(F.relu(x))))


class Fusion(nn.Module):
    """Fusion of the coarser maps with a finer one, at twice the size."""

    def __init__(self, width: int, *, has_skip: bool) -> None:
        super().__init__()
        # The coarsest fusion has one input only; DDP fails for parameters without gradient.
        self.skip_unit = ResidualUnit(width) if has_skip else None
        self.unit = ResidualUnit(width)
        self.project = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, skip: Tensor | None = None) -> Tensor:
        """Add `skip` to `x`, both of one size; return the refined sum at twice that size."""
        if self.skip_unit is not None and skip is not None:
            x = x + self.skip_unit(skip)
        x = _double(self.unit(x))
        return self.project(x)


class DptHead(nn.Module):
    """Head from four token maps, finest scale first, to dense outputs.

    Args:
        in_widths: Channels of the maps.
        widths: Channels of the pyramid's levels.
        fused_width: Channels of the fusion; the output convolutions begin with half of them.
        last_width: Channels before the outputs.
        num_outputs: Outputs per pixel.
    """

    def __init__(
        self,
        in_widths: Sequence[int],
        *,
        widths: Sequence[int],
        fused_width: int,
        last_width: int,
        num_outputs: int,
    ) -> None:
        super().__init__()
        w1, w2, w3, w4 = widths
        # Scales of the pyramid: 4, 2, 1 and 1/2 cells per patch.
        resize = (
            nn.ConvTranspose2d(w1, w1, 4, stride=4),
            nn.ConvTranspose2d(w2, w2, 2, stride=2),
            nn.Identity(),
            nn.Conv2d(w4, w4, 3, stride=2, padding=1),
        )
        self.reassemble = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(in_width, width, 1),
                resized,
                nn.Conv2d(width, fused_width, 3, padding=1, bias=False),
            )
            for in_width, width, resized in zip(in_widths, (w1, w2, w3, w4), resize, strict=True)
        )
        self.fusions = nn.ModuleList(Fusion(fused_width, has_skip=level < 3) for level in range(4))
        self.before = nn.Conv2d(fused_width, fused_width // 2, 3, padding=1)
        self.after = nn.Sequential(
            nn.Conv2d(fused_width // 2, last_width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(last_width, num_outputs, 1),
        )

    def forward(
        self, maps: Sequence[Float[Tensor, "batch width rows columns"]], size: tuple[int, int]
    ) -> Float[Tensor, "batch outputs height width"]:
        """Return the outputs for each pixel of images of `size`.

        Raises:
            MidwayError: The number of rows or columns is odd.
        """
        rows, columns = maps[0].shape[-2:]
        if rows % 2 or columns % 2:
            raise MidwayError(
                f"DPT head: {rows}x{columns} patches, both must be even; crop the image of "
                f"{size[0]}x{size[1]} pixels to a multiple of two patches"
            )
        # (batch, fused_width, s * rows, s * columns) for s = 4, 2, 1, 1/2
        pyramid = [part(tokens) for part, tokens in zip(self.reassemble, maps, strict=True)]
        x = self.fusions[3](pyramid[3])  # 1 cell per patch
        for level in (2, 1, 0):
            x = self.fusions[level](x, pyramid[level])  # 2, 4, then 8 cells per patch
        # From 8 cells per patch to pixels: a doubling for patches of 16 pixels.
        x = F.interpolate(self.before(x), size, mode="bilinear", align_corners=True)
        return self.after(x)


def to_map(
    tokens: Float[Tensor, "batch tokens width"], grid: tuple[int, int]
) -> Float[Tensor, "batch width rows columns"]:
    """Arrange the patch tokens as a map; the class token, which is first, is dropped."""
    return tokens[:, 1:].transpose(1, 2).unflatten(2, grid)


def _double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=True)
