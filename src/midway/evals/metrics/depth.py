"""Depth metrics: RMSE, AbsRel and delta1, averaged over images as in the literature on NYU."""

from dataclasses import dataclass

import torch
from torch import Tensor

from midway.errors import MidwayError

DELTA = 1.25
"""Largest ratio between predicted and true depth, either way, of a pixel that is right."""


@dataclass(frozen=True, kw_only=True)
class DepthScore:
    """Metrics over a dataset, means over its images."""

    rmse: float
    """Root mean square error in metres."""
    abs_rel: float
    """Mean of the absolute error divided by the true depth."""
    delta1: float
    """Share of pixels with max(predicted / true, true / predicted) below 1.25, in percent."""


NAMES = ("rmse", "abs_rel", "delta1")


class DepthMetric:
    """Sums of the metrics of images, summed over the processes of a run."""

    def __init__(self, device: torch.device) -> None:
        self._sums = torch.zeros(len(NAMES) + 1, dtype=torch.float64, device=device)

    def add(self, predicted: Tensor, truth: Tensor) -> None:
        """Add an image.

        Args:
            predicted: Depth in metres at its known pixels, shape (pixels,), above 0.
            truth: True depth at the same pixels; an image without any is not counted.

        """
        if len(truth):
            score = image_score(predicted.double(), truth.double())
            one = torch.ones(1, dtype=torch.float64, device=score.device)
            self._sums += torch.cat([score, one]).to(self._sums)

    def score(self) -> DepthScore:
        """Return the means over images. A collective operation: all processes must call it.

        Raises:
            MidwayError: No image was counted.

        """
        sums = self._sums.clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        *totals, count = sums.tolist()
        if not count:
            raise MidwayError("depth score: no test pixel has a depth; check the files")
        values = dict(zip(NAMES, (total / count for total in totals), strict=True))
        return DepthScore(**values)


def image_score(predicted: Tensor, truth: Tensor) -> Tensor:
    """Return RMSE, AbsRel and delta1 (in percent) of one image, shape (3,).

    Args:
        predicted: Depth in metres, of any shape, above 0.
        truth: True depth, of the same shape, above 0.

    """
    error = predicted - truth
    ratio = torch.maximum(predicted / truth, truth / predicted)
    return torch.stack(
        [
            error.square().mean().sqrt(),
            (error.abs() / truth).mean(),
            100 * (ratio < DELTA).to(error).mean(),
        ]
    )
