"""Segmentation inference on images of any size: whole, or by sliding windows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class InferenceConfig:
    """Inference on test images, whole or by sliding windows."""

    mode: Literal["slide", "whole"] = "slide"
    window: tuple[int, int] = (512, 512)
    """Height and width of a window, in pixels."""
    stride: tuple[int, int] = (341, 341)
    """Vertical and horizontal step between windows, in pixels."""
    batch_size: int = 8
    """Windows per forward pass."""

    def __post_init__(self) -> None:
        if min(*self.window, *self.stride, self.batch_size) < 1:
            raise MidwayError(
                "inference: window, stride and batch_size must be 1 or more; raise those below 1"
            )
        if self.stride[0] > self.window[0] or self.stride[1] > self.window[1]:
            raise MidwayError(
                f"inference.stride {self.stride}: is longer than the window {self.window}, so "
                "pixels would have no prediction; make it shorter"
            )


def windows(length: int, window: int, stride: int) -> list[tuple[int, int]]:
    """Return start and end of the windows along a side; the last one is aligned with its end.

    Examples:
        >>> windows(1280, 512, 341)
        [(0, 512), (341, 853), (682, 1194), (768, 1280)]

    """
    count = max(length - window + stride - 1, 0) // stride + 1
    starts = [max(0, min(number * stride, length - window)) for number in range(count)]
    return [(start, min(start + window, length)) for start in starts]


def predict_logits(
    logits_of: Callable[[Tensor], Tensor], image: Tensor, config: InferenceConfig
) -> Tensor:
    """Compute the logits of an image; they are averaged where windows overlap.

    Args:
        logits_of: Function from images (B, 3, h, w) to logits (B, classes, h, w).
        image: Shape (3, height, width). A side shorter than the window is not padded.
        config: Mode, window, stride and batch size.

    Returns:
        Shape (classes, height, width).

    """
    if config.mode == "whole":
        return logits_of(image[None])[0]
    height, width = image.shape[1:]
    places = [
        (slice(*rows), slice(*columns))
        for rows in windows(height, config.window[0], config.stride[0])
        for columns in windows(width, config.window[1], config.stride[1])
    ]
    total = counts = None
    for first in range(0, len(places), config.batch_size):
        part = places[first : first + config.batch_size]
        logits = logits_of(torch.stack([image[:, rows, columns] for rows, columns in part]))
        if total is None or counts is None:
            total = logits.new_zeros(logits.shape[1], height, width)
            counts = logits.new_zeros(height, width)
        for (rows, columns), window_logits in zip(part, logits, strict=True):
            total[:, rows, columns] += window_logits
            counts[rows, columns] += 1
    assert total is not None
    assert counts is not None
    return total / counts


def classes_at(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Upsample logits bilinearly to the size of the labels, and return the argmax.

    Args:
        logits: Shape (classes, height, width).
        size: Height and width of the labels.

    Returns:
        Class ids of shape `size`.

    """
    return F.interpolate(logits[None], size, mode="bilinear")[0].argmax(0)
