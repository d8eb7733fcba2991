"""Pictures of predicted flow beside the truth."""

from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray

from midway.data.flow.colours import flow_to_rgb, longest_pixels
from midway.data.flow.datasets import FlowExample
from midway.data.flow.files import is_known

GAP_PIXELS = 4
ERROR_SHARE = 0.5
"""Of the longest true motion, the error at which its colours end."""


def flow_picture(example: FlowExample, predicted: NDArray[Any]) -> NDArray[np.uint8]:
    """Source, target and both in one above; true flow, predicted flow and the error below; RGB.

    Flow has one scale, the longest true motion. The error goes from black over red to pale
    yellow at half of that length; where the truth is not known both are black.
    """
    longest = longest_pixels(example.flow)
    known = is_known(example.flow)
    difference = predicted - np.where(known[..., None], example.flow, 0)
    share = np.hypot(difference[..., 0], difference[..., 1]) / (ERROR_SHARE * longest)
    heat = colormaps["inferno"](np.clip(share, 0, 1))[..., :3] * known[..., None]
    error = np.rint(255 * heat).astype(np.uint8)
    truth, guess = (flow_to_rgb(flow, longest) for flow in (example.flow, predicted))
    both = (example.source // 2) + (example.target // 2)
    rows = ([example.source, example.target, both], [truth, guess, error])
    return _joined([_joined(images, axis=1) for images in rows], axis=0)


def _joined(images: list[NDArray[np.uint8]], *, axis: int) -> NDArray[np.uint8]:
    shape = list(images[0].shape)
    shape[axis] = GAP_PIXELS
    gap = np.full(shape, 255, np.uint8)
    parts = [part for image in images for part in (gap, image)]
    return np.concatenate(parts[1:], axis=axis)
