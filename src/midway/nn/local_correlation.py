"""Local correlation: how well each patch matches the patches near it in another frame."""

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from midway.nn.linear import Linear

TEMPERATURE = 0.1
"""Temperature of the softmax over cosine similarities."""
INIT_STD = 0.5
"""Standard deviation of the projection's initial weights: its inputs are probabilities, small
beside the tokens that they are added to."""


class LocalCorrelation(nn.Module):
    """Projection of each source patch's match probabilities in a window of the target.

    Where a patch went is then a linear function of its token. Attention has to learn the same as a
    product of contents and positions.

    Args:
        radius: Patches to each side of the window.
        width: Width of the output.

    """

    def __init__(self, radius: int, width: int) -> None:
        super().__init__()
        self.radius = radius
        self.up = Linear((2 * radius + 1) ** 2, width)

    def reset(self) -> None:
        """Draw the initial weights."""
        nn.init.normal_(self.up.weight, std=INIT_STD)

    def forward(
        self,
        source: Float[Tensor, "batch tokens dim"],
        target: Float[Tensor, "batch tokens dim"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "batch tokens width"]:
        """Return the update to add to the source's tokens; zero for the class token.

        Args:
            source: Class token and patches of the source.
            target: Class token and patches of the target.
            grid: Rows and columns of patches.

        """
        # Features are not to change so that they correlate: no gradient.
        frames = torch.cat([source, target], dim=1).detach().unflatten(1, (2, -1))[:, :, 1:]
        # What all patches share says nothing about a match.
        frames = F.normalize(frames - frames.mean(dim=(1, 2), keepdim=True), dim=-1)
        first, second = frames.unbind(1)  # (batch, patches, dim)
        places, is_inside = window(grid, self.radius, source.device)
        scores = (first @ second.mT / TEMPERATURE).float()  # (batch, patches, patches)
        scores = scores.take_along_dim(places[None], dim=2)  # (batch, patches, window)
        matches = scores.masked_fill(~is_inside, -torch.inf).softmax(dim=-1)
        return F.pad(self.up(matches), (0, 0, 1, 0))


def window(
    grid: tuple[int, int], radius: int, device: torch.device
) -> tuple[Int[Tensor, "patches window"], Tensor]:
    """Return the patches in the window of each patch, row by row, and a mask of those in the grid.

    For a place outside the grid, the nearest patch at its edge is returned.
    """
    rows, columns = (torch.arange(side, device=device) for side in grid)
    steps = torch.arange(-radius, radius + 1, device=device)
    row, column = rows[:, None] + steps, columns[:, None] + steps  # (side, 2 * radius + 1)
    held = row.clamp(0, grid[0] - 1), column.clamp(0, grid[1] - 1)
    # (rows, columns, steps, steps)
    places = held[0][:, None, :, None] * grid[1] + held[1][None, :, None, :]
    inside = (held[0] == row)[:, None, :, None] & (held[1] == column)[None, :, None, :]
    return places.flatten(2).flatten(0, 1), inside.flatten(2).flatten(0, 1)
