"""Exportable heatmaps of forwarded feature perturbation."""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from midway.analysis.jvp import ForwardTangents
from midway.analysis.perturbation import check_level, random_directions, tangent_cosines
from midway.errors import MidwayError
from midway.export.parts import BATCH, Part
from midway.models.dynamics import ForwardDynamics, LevelOutput
from midway.models.encoders.base import Images
from midway.models.midway import MidwayNetwork


class HeatmapPart(Part):
    """Heatmaps of one pair of images, with the perturbed source patches as an input.

    They equal those of `midway.analysis.perturbation`; the random directions are constants.

    Args:
        network: Network in evaluation mode.
        size: Height and width of the images in pixels.
        level: Level of the forward model.
        num_draws: Number of random directions that are averaged.
        seed: Seed of the directions.
        dtype: Dtype of the tangents; the network's if None.

    Raises:
        MidwayError: The level has no forward model, or `num_draws` is below 1.

    """

    name = "heatmap"
    inputs = ("source", "target", "token")
    dynamic = ("token",)
    directions: Float[Tensor, "draws dim"]

    def __init__(
        self,
        network: MidwayNetwork,
        size: tuple[int, int],
        *,
        level: int,
        num_draws: int = 16,
        seed: int = 0,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__(size)
        check_level(network, level)
        if num_draws < 1:
            raise MidwayError(f"{num_draws} draws: give 1 or more")
        self.network, self.level, self.seed, self.dtype = network, level, seed, dtype
        directions = random_directions(num_draws, network.config.encoder.width, seed)
        self.register_buffer("directions", directions, persistent=False)

    @property
    def facts(self) -> dict[str, Any]:
        """Level, number of directions and their seed."""
        return {"level": self.level, "draws": len(self.directions), "seed": self.seed}

    def examples(self, *, batch: int = BATCH, seed: int = 0) -> tuple[Tensor, ...]:
        """Draw a pair of images and `batch` of its patches."""
        generator = torch.Generator().manual_seed(seed)
        source, target = torch.randn(2, 1, 3, *self.size, generator=generator)
        rows, columns = self.network.grid(source)
        token = torch.randint(rows * columns, (batch,), generator=generator)
        return source, target, token

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, source: Images, target: Images, token: Int[Tensor, " tokens"]
    ) -> dict[str, Tensor]:
        """Return one heatmap (tokens, rows, columns) over the target per token; cosines.

        Args:
            source: One ImageNet-normalised image.
            target: One image of the same size.
            token: Source patches to perturb, as row-major indices from 0.

        """
        output = self.network.at_level(source, target, self.level)
        return {"heatmap": self.heatmaps(output, token, self.network.grid(source))}

    def heatmaps(
        self, output: LevelOutput, token: Int[Tensor, " tokens"], grid: tuple[int, int]
    ) -> Float[Tensor, "tokens rows columns"]:
        """Return the heatmaps of an output of the network at this level, of one pair."""
        latents = self.network.dynamics.raise_latents(output.motion_latents)
        model, v = self.network.dynamics.forward_models[str(self.level)], output.source_backward
        assert isinstance(model, ForwardDynamics)
        tangents = ForwardTangents(model, v[0], latents[0], dtype=self.dtype or v.dtype)
        # One perturbation per token and direction, grouped by token; place 0 is the class token.
        num_draws = len(self.directions)
        places = 1 + token.repeat_interleave(num_draws)
        directions = self.directions.repeat(token.shape[0], 1)
        cosines = tangent_cosines(tangents, places, directions)
        # (tokens * draws, patches), averaged over the draws
        return cosines.reshape(-1, num_draws, cosines.shape[1]).mean(1).unflatten(1, grid)
