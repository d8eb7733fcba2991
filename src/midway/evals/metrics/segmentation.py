"""Semantic segmentation metrics: confusion matrix, mIoU and pixel accuracy over a dataset."""

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
    """Metrics over all labelled pixels of a dataset, in percent."""

    miou: float
    """Mean IoU over the classes that occur in labels or predictions."""
    accuracy: float
    """Share of correctly classified pixels."""
    iou: tuple[float, ...]
    """Intersection over union of each class; NaN for a class that occurs in neither."""


class SegmentationMetric:
    """Confusion matrix, accumulated over images and summed over the processes of a run."""

    def __init__(self, num_classes: int, device: torch.device) -> None:
        self._counts = torch.zeros(num_classes, num_classes, dtype=torch.long, device=device)

    def add(self, predictions: Tensor, labels: Tensor) -> None:
        """Add the pixels of a batch of images; those labelled `IGNORE` are skipped.

        Args:
            predictions: Class ids, of any shape.
            labels: Class ids, of the same shape.

        """
        self._counts += confusion_matrix(predictions, labels, len(self._counts))

    def confusion(self) -> Tensor:
        """Return the counts by true (row) and predicted (column) class, on the CPU.

        A collective operation: all processes must call it.
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
        predictions: Class ids, of any shape.
        labels: Class ids, of the same shape and device; pixels labelled `IGNORE` are skipped.
        num_classes: Number of classes, above all predictions and all other labels.

    """
    kept = labels != IGNORE
    pairs = labels[kept].long() * num_classes + predictions[kept].long()
    return pairs.bincount(minlength=num_classes**2).view(num_classes, num_classes)


def score_of(confusion: Tensor) -> SegmentationScore:
    """Compute the metrics of a confusion matrix of shape (true classes, predicted classes)."""
    counts = confusion.double()
    right = counts.diagonal()
    iou = 100 * right / (counts.sum(0) + counts.sum(1) - right)
    return SegmentationScore(
        miou=iou.nanmean().item(),
        accuracy=(100 * right.sum() / counts.sum()).item(),
        iou=tuple(iou.tolist()),
    )


def scores(confusion: Tensor, class_names: Sequence[str]) -> dict[str, Any]:
    """Return mIoU, pixel accuracy and the table of classes, as written to the results.

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
    """Return IoU, accuracy (recall) and share of labelled pixels of each class, in percent.

    A value is None if no pixel has the class.
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
    # JSON has no NaN.
    return round(value.item(), 4) if value.isfinite() else None
