"""Exportable optical flow without finetuning, by matching the dynamics' prediction."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.perturbation import check_level
from midway.errors import MidwayError
from midway.export.parts import Part
from midway.models.encoders.base import Images
from midway.models.flow.correlation import PEAK_RADIUS, TEMPERATURE, predicted_source
from midway.models.midway import MidwayNetwork


class MatchingPart(Part):
    """Flow that equals `midway.models.flow.correlation.dynamics_flow`.

    Unlike there, one product compares all cells with all cells. A product per offset would save
    memory, but add a node to the graph for each offset.

    Args:
        network: Network in evaluation mode.
        size: Height and width of the images in pixels.
        level: Level of the forward model.
        radius: Search radius in patches.

    Raises:
        MidwayError: The level has no forward model, or the radius is below 1.

    """

    name = "flow"

    offsets: Tensor
    window: Tensor
    outside: Tensor

    def __init__(
        self, network: MidwayNetwork, size: tuple[int, int], *, level: int, radius: int
    ) -> None:
        super().__init__(size)
        check_level(network, level)
        if radius < 1:
            raise MidwayError(f"radius {radius}: too small; give 1 patch or more")
        self.network, self.level, self.radius = network, level, radius
        rows, columns = network.grid(torch.empty(1, 3, *size))
        steps, cells = torch.arange(-radius, radius + 1), torch.arange(rows * columns)
        down, right = (each.flatten() for each in torch.meshgrid(steps, steps, indexing="ij"))
        # Row and column of the target cell of each source cell and offset: (cells, offsets)
        row, column = cells[:, None] // columns + down, cells[:, None] % columns + right
        inside = (row >= 0) & (row < rows) & (column >= 0) & (column < columns)
        window = row.clamp(0, rows - 1) * columns + column.clamp(0, columns - 1)
        constants = {
            "offsets": torch.stack([right, down], dim=1).float(),  # (offsets, 2)
            "window": window,
            # Cells outside the target never match.
            "outside": torch.zeros(window.shape).masked_fill(~inside, -torch.inf),
        }
        for name, each in constants.items():
            self.register_buffer(name, each, persistent=False)

    @property
    def facts(self) -> dict[str, Any]:
        """Level and search radius."""
        return {"level": self.level, "radius": self.radius}

    def forward(self, source: Images, target: Images) -> dict[str, Tensor]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Return flow (batch, 2, height, width) in pixels, u right and v down."""
        looked_for, found_in = (
            tokens[:, 1:] for tokens in predicted_source(self.network, source, target, self.level)
        )
        mean = found_in.mean(1, keepdim=True)  # (batch, 1, dim)
        cells = self._matched(looked_for - mean, found_in - mean)
        flow = cells.transpose(1, 2).unflatten(
            2, self.network.grid(source)
        )  # (batch, 2, rows, columns)
        stride = self.network.encoder.stride
        return {"flow": F.interpolate(flow, self.size, mode="bilinear") * stride}

    def _matched(
        self, source: Float[Tensor, "batch cells dim"], target: Float[Tensor, "batch cells dim"]
    ) -> Float[Tensor, "batch cells 2"]:
        """Return the displacement of each source cell by a soft-argmax near the best target."""
        cosines = F.normalize(source, dim=2) @ F.normalize(target, dim=2).mT
        window = self.window.expand(source.shape[0], -1, -1)
        near = cosines.gather(2, window) + self.outside  # (batch, cells, offsets)
        highest, place = near.max(2, keepdim=True)
        best = self.offsets[place]  # (batch, cells, 1, 2)
        is_near = (self.offsets - best).abs().amax(3) < PEAK_RADIUS
        weight = ((near - highest) / TEMPERATURE).exp() * is_near
        return weight @ self.offsets / weight.sum(2, keepdim=True)
