"""Exportable parts of a network: modules from tensors to tensors, with named inputs and outputs."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import fields
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from midway.errors import MidwayError, one_line
from midway.models.encoders.base import Encoder, Images
from midway.models.encoders.vit import VisionTransformer
from midway.models.flow.base import FlowModule
from midway.models.heads.dpt import to_map
from midway.models.midway import MidwayNetwork

BATCH = 2
"""Size of dynamic dimensions while a part is traced; a size of 1 would become a constant."""


class Part(nn.Module, ABC):
    """Part of a network, for images of one size."""

    name: ClassVar[str]
    inputs: ClassVar[tuple[str, ...]] = ("source", "target")
    """Names of the inputs of `forward`."""
    dynamic: ClassVar[tuple[str, ...]] = ("source", "target")
    """Inputs with a first dimension of any size, which they have in common."""

    def __init__(self, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size

    @property
    def facts(self) -> dict[str, Any]:
        """Options of the part, as JSON values."""
        return {}

    def examples(self, *, batch: int = BATCH, seed: int = 0) -> tuple[Tensor, ...]:
        """Draw inputs.

        Args:
            batch: Size of the dynamic dimension.
            seed: Seed of the values.

        """
        generator = torch.Generator().manual_seed(seed)
        shape = (len(self.inputs), batch, 3, *self.size)
        return torch.randn(shape, generator=generator).unbind(0)

    def outputs(self) -> list[str]:
        """Return the names of the outputs."""
        with torch.no_grad():
            return list(self(*self.examples()))

    @abstractmethod
    def forward(self, *inputs: Tensor) -> dict[str, Tensor]:
        """Return the outputs by name."""


def traced(part: Part) -> ExportedProgram:
    """Trace a part in evaluation mode, with a dynamic batch.

    Raises:
        MidwayError: torch.export cannot trace it.

    """
    batch = Dim("batch", min=1)
    shapes = tuple({0: batch} if name in part.dynamic else None for name in part.inputs)
    try:
        with torch.no_grad():
            return torch.export.export(part, part.examples(), dynamic_shapes=shapes)
    except (RuntimeError, ValueError, TypeError) as error:
        # Constraints, missing fake kernels and data-dependent branches.
        raise MidwayError(
            f"part {part.name}: torch.export cannot trace it ({one_line(error)}); export weights "
            "to .safetensors instead"
        ) from None


class EncoderPart(Part):
    """Feature maps of an encoder, and the class token at the top of a ViT.

    Args:
        encoder: Encoder in evaluation mode.
        size: Height and width of the images in pixels.
        levels: Levels of the maps, 1-based or negative from the top.

    """

    name = "encoder"
    inputs = dynamic = ("images",)

    def __init__(self, encoder: Encoder, size: tuple[int, int], levels: Sequence[int]) -> None:
        super().__init__(size)
        self.encoder, self.levels = encoder, encoder.resolved(levels)

    @property
    def facts(self) -> dict[str, Any]:
        """Levels of the maps."""
        return {"levels": self.levels}

    def forward(self, images: Images) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return maps (batch, channels, rows, columns), and the class token (batch, dim)."""
        names, encoder = [f"level{level}" for level in self.levels], self.encoder
        if not isinstance(encoder, VisionTransformer):
            return dict(zip(names, encoder.maps(images, self.levels), strict=True))
        *found, top = encoder.levels(images, (*self.levels, -1))
        maps = [to_map(each, encoder.grid(images)) for each in found]
        return dict(zip(names, maps, strict=True)) | {"class_token": top[:, 0]}


class NetworkPart(Part):
    """All outputs of a Midway network, named by level and field of `LevelOutput`."""

    name = "network"

    def __init__(self, network: MidwayNetwork, size: tuple[int, int]) -> None:
        super().__init__(size)
        self.network = network

    def forward(self, source: Images, target: Images) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return the tensors of `MidwayOutput`, from the top level down."""
        named: dict[str, Tensor] = {}
        for level, output in self.network(source, target).levels.items():
            for field in fields(output):
                value, name = getattr(output, field.name), f"level{level}.{field.name}"
                if isinstance(value, Tensor):
                    named[name] = value
                else:  # gates of the forward blocks, which count from 1; block 1 has none
                    named |= {f"{name}.{block}": gate for block, gate in enumerate(value, 2)}
        # Without latent dynamics, latents and midway tokens are empty.
        return {name: value for name, value in named.items() if 0 not in value.shape[1:]}


class FlowPart(Part):
    """Optical flow of a finetuned flow network, and its raw uncertainty."""

    name = "flow"

    def __init__(self, network: FlowModule, size: tuple[int, int]) -> None:
        super().__init__(size)
        self.network = network

    def forward(self, source: Images, target: Images) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return flow (batch, 2, height, width) in pixels, u right and v down, and uncertainty."""
        found = self.network(source, target)
        return {"flow": found[:, :2], "uncertainty": found[:, 2:]}
