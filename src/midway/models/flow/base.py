"""Common part of the optical flow networks: an encoder, a network between frames, a DPT head."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.config import check_at_most
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, Images, Map
from midway.models.heads.dpt import DptHead

FlowInput = Literal["source", "midway_top", "midway_bottom", "forward_top", "forward_bottom"]
"""Input of the head: the top encoder level of the source, the target tokens of the midway path, or
the forward prediction; top and bottom are objective levels (9 and 3 in the paper)."""
MAX_WIDTH = 2**14
"""Largest width of a map in the DPT head."""


@dataclass(frozen=True, kw_only=True)
class DptConfig:
    """Inputs and widths of the DPT head, finest scale first."""

    inputs: tuple[FlowInput, FlowInput, FlowInput, FlowInput] = (
        "source",
        "midway_top",
        "forward_top",
        "forward_bottom",
    )
    """In the order of the paper, which does not state their scales. Only for dynamics; a pair
    encoder has its own four maps."""
    widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    fused_width: int = 256
    last_width: int = 32


def check_dpt(dpt: DptConfig) -> None:
    """Check that the widths of a head are not too large.

    Raises:
        MidwayError: A width is too large.

    """
    check_at_most("dpt", dpt, fused_width=MAX_WIDTH, last_width=MAX_WIDTH)
    if max(dpt.widths) > MAX_WIDTH:
        raise MidwayError(f"dpt: widths {dpt.widths} are too large; give at most {MAX_WIDTH}")


def check_crop(crop: tuple[int, int], stride: int) -> None:
    """Check that the sides of a crop are multiples of two patches, as the head needs.

    Raises:
        MidwayError: A side is not a multiple.

    """
    (height, width), patches = crop, 2 * stride
    if height % patches or width % patches:
        raise MidwayError(
            f"flow network: a crop of {height}x{width} pixels is not a multiple of two patches "
            f"of {stride}; give one like --data.crop "
            f"{max(1, height // patches) * patches} {max(1, width // patches) * patches}"
        )


class FlowModule(nn.Module, ABC):
    """Network from two frames to flow and its uncertainty."""

    config: Any
    """Sizes, with the training `crop`."""
    encoder: Encoder
    head: DptHead

    def __init__(self) -> None:
        super().__init__()
        self.is_frozen = False

    @property
    @abstractmethod
    def between(self) -> nn.Module:
        """Network between the features of two frames."""

    @abstractmethod
    def maps(self, source: Images, target: Images) -> list[Map]:
        """Return the four inputs of the head, which may have different widths."""

    def freeze(self) -> None:
        """Freeze all parts but the head, so that only the head is trained."""
        self.is_frozen = True
        for part in (self.encoder, self.between):
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; frozen parts remain in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
            self.between.eval()
        return self

    def forward(self, source: Images, target: Images) -> Float[Tensor, "batch 3 height width"]:
        """Return flow from source to target in pixels (u right, v down), and raw uncertainty.

        Both frames are ImageNet-normalised, and their sides multiples of two patches. Position
        tables are resampled to their size.
        """
        # Frozen parts keep no activations for the backward pass.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            maps = self.maps(source, target)
        return self.head(maps, (source.shape[-2], source.shape[-1]))


def dpt_head(in_widths: Sequence[int], dpt: DptConfig) -> DptHead:
    """Build a fresh head for flow and its uncertainty on maps of these widths."""
    return DptHead(
        in_widths,
        widths=dpt.widths,
        fused_width=dpt.fused_width,
        last_width=dpt.last_width,
        num_outputs=3,
    )
