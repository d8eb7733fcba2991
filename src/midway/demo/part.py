"""Part of a network that the page runs: heatmaps, features for tracking, and gates of a pair."""

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from midway.export.heatmap import HeatmapPart
from midway.export.parts import BATCH
from midway.models.dynamics import LevelOutput
from midway.models.encoders.base import Images

Queries = Float[Tensor, "tokens dim"]


class PagePart(HeatmapPart):
    """Everything that the page shows of a pair of images, for any number of source patches.

    Heatmaps are those of `midway.analysis.perturbation`, similarities those of
    `midway.analysis.track_steps`, both at the level of the part.
    """

    name = "page"
    inputs = ("source", "target", "token", "query")
    dynamic = ("token", "query")

    def examples(self, *, batch: int = BATCH, seed: int = 0) -> tuple[Tensor, ...]:
        """Draw a pair of images, `batch` of its patches, and as many descriptors."""
        dim = self.network.config.encoder.width
        query = torch.randn(batch, dim, generator=torch.Generator().manual_seed(seed))
        return (*super().examples(batch=batch, seed=seed), F.normalize(query, dim=1))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, source: Images, target: Images, token: Int[Tensor, " tokens"], query: Queries
    ) -> dict[str, Tensor]:
        """Return maps over patches (tokens, rows, columns), and a descriptor of each token.

        Args:
            source: One ImageNet-normalised image.
            target: One image of the same size.
            token: Source patches, as row-major indices from 0.
            query: Descriptors to find in the target, from an earlier call.

        Returns:
            `heat`, the heatmaps; `similarity`, cosines of the queries with the target's
            descriptors; `descriptor` (tokens, dim); `gates` (blocks, rows, columns), means over
            channels.

        """
        grid, levels = self.network.grid(source), self.network.config.levels
        # The student sees both frames, because tracking compares its features.
        student = self.network.encoder.levels(torch.cat([source, target]), levels)
        teacher = self.network.teacher.encoder.levels(target, levels)
        of_source = [level[:1] for level in student]
        outputs = self.network.predict(of_source, teacher, grid, lowest=self.level)
        output = outputs.levels[self.level]
        patches = student[levels.index(self.level)][:, 1:]  # (2, patches, dim)
        # The mean over patches would dominate the cosine similarity.
        here, there = F.normalize(patches - patches.mean(1, keepdim=True), dim=2).unbind(0)
        return {
            "heat": self.heatmaps(output, token, grid),
            "similarity": (query @ there.T).unflatten(1, grid),
            "descriptor": here[token],
            "gates": _gates(output).unflatten(1, grid),
        }


def _gates(output: LevelOutput) -> Float[Tensor, "blocks patches"]:
    """Return the mean gate of each patch; ones for a network without gates, which keeps all."""
    if not output.gates:
        return torch.ones_like(output.prediction[:, 1:, 0])
    return torch.cat([gate[:, 1:].mean(2) for gate in output.gates])
