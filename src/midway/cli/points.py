"""Points as they are typed: X,Y in pixels."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from midway.errors import MidwayError


def parse_points(words: Sequence[str]) -> Float[Tensor, "points 2"]:
    """Column x and row y of points, each typed as ``X,Y``.

    Raises:
        MidwayError: There is none, or one is no pair of numbers.

    """
    if not words:
        raise MidwayError("no point; give --point X,Y in pixels from the upper left corner")
    points = []
    for word in words:
        try:
            x, y = map(float, word.split(","))
        except ValueError:
            raise MidwayError(f"point '{word}': give X,Y in pixels, like 120,80") from None
        points.append((x, y))
    return torch.tensor(points)
