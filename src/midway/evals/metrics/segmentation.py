"""Scores of predicted classes over all pixels of a dataset at once."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from midway.data.segmentation.classes import IGNORE
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class SegmentationScore:
    """How well labels are predicted, over all pixels of a dataset at once, in percent."""

    miou: float
    """Mean over the classes that truth or prediction has."""
    accuracy: float
    """Share of pixels that are right."""
    iou: tuple[float, ...]
    """Intersection over union of each class; NaN for a class that neither has."""


class SegmentationMetric:
    """Counts pixels by true and predicted class, over images and over the processes of a run."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._counts = torch.zeros(num_classes, num_classes, dtype=torch.long, device=device)

    def add(self, predictions: Tensor, labels: Tensor) -> None:
        """Count the pixels of some images; those labelled `IGNORE` are left out.

        Args:
            predictions: Classes, of any shape.
            labels: Likewise.

        """
        self._counts += confusion_matrix(predictions, labels, len(self._counts))

    def confusion(self) -> Tensor:
        """Pixels of each true (row) and predicted (column) class, those of all processes summed.

        Every process has to ask.
        """
        counts = self._counts.clone()
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(counts)
        return counts.cpu()


def confusion_matrix(
    predictions: Tensor, labels: Tensor, num_classes: int
) -> Int[Tensor, "classes classes"]:
    """Count pixels by true (row) and predicted (column) class.

    Args:
        predictions: Classes, of any shape.
        labels: Likewise, on the same device; pixels labelled `IGNORE` are left out.
        num_classes: Every prediction and every other label is below it.

    """
    kept = labels != IGNORE
    pairs = labels[kept].long() * num_classes + predictions[kept].long()
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def score_of(confusion: Tensor) -> SegmentationScore:
    """Score of a confusion matrix of shape (classes, classes), rows being the truth."""
    counts = confusion.double()
    right = counts.diagonal()
    iou = 100 * right / (counts.sum(0) + counts.sum(1) - right)
    return SegmentationScore(
        miou=iou.nanmean().item(),
        accuracy=(100 * right.sum() / counts.sum()).item(),
        iou=tuple(iou.tolist()),
    )


def scores(confusion: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """mIoU, pixel accuracy and the table of the classes, as results hold them.

    Raises:
        MidwayError: No pixel was counted.

    """
    if not confusion.any():
        raise MidwayError("segmentation score: no test pixel has a class; check the labels")
    score = score_of(confusion)
    return {
        "miou": score.miou,
        "accuracy": score.accuracy,
        "classes": class_table(confusion, class_names),
    }


def class_table(confusion: Tensor, class_names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """IoU, accuracy (recall) and share of the labelled pixels of each class, in percent.

    A number that does not exist, because no pixel has the class, is None.
    """
    counts = confusion.double()
    labelled, right = counts.sum(1), counts.diagonal()
    columns = {
        "iou": 100 * right / (counts.sum(0) + labelled - right),
        "accuracy": 100 * right / labelled,
        "pixels": 100 * labelled / counts.sum(),
    }
    return {
        name: {key: _number(values[index]) for key, values in columns.items()}
        for index, name in enumerate(class_names)
    }


def _number(value: Tensor) -> float | None:
    return round(value.item(), 4) if value.isfinite() else None
