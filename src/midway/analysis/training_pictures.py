"""Pictures of a batch during training, for TensorBoard: features by PCA, and heatmaps."""

import numpy as np
import torch
from jaxtyping import Float
from matplotlib import colormaps
from numpy.typing import NDArray
from torch import Tensor

from midway.analysis.perturbation import perturbation_heatmaps
from midway.analysis.pictures import HEAT_COLOURS, smoothed, to_bytes
from midway.analysis.token_colours import fit_colours
from midway.models.encoders.base import Encoder
from midway.models.midway import MidwayNetwork

SHOWN = 8
"""Maximum number of images in a picture."""
HEAT_OPACITY = 0.85
"""Opacity of a heatmap at its maximum."""

Images = Float[Tensor, "batch 3 height width"]
Picture = NDArray[np.uint8]
"""RGB bytes (height, width, 3)."""


@torch.no_grad()
def feature_picture(encoder: Encoder, images: Images) -> Picture:
    """Draw images above the features of the top level, coloured by principal components.

    Args:
        encoder: Encoder in evaluation mode.
        images: ImageNet-normalised; the first `SHOWN` are drawn.

    """
    images = images[:SHOWN]
    (features,) = encoder.maps(images, [-1])  # (images, channels, rows, columns)
    tokens = features.float().permute(0, 2, 3, 1)  # (images, rows, columns, channels)
    colours = fit_colours(tokens.flatten(0, 2))(tokens)
    height, width = images.shape[-2:]
    rows, columns = (
        np.arange(side) * count // side
        for side, count in zip((height, width), colours.shape[1:3], strict=True)
    )
    return _joined(to_bytes(images), colours[:, rows[:, None], columns])


def heatmap_picture(network: MidwayNetwork, source: Images, target: Images) -> Picture:
    """Draw sources above their targets, with the heatmap of the central patch at the top level.

    Args:
        network: Network in evaluation mode.
        source: ImageNet-normalised; the first `SHOWN` are drawn.
        target: Images of the same shape.

    """
    source, target = source[:SHOWN], target[:SHOWN]
    rows, columns = network.grid(target)
    token = rows // 2 * columns + columns // 2
    level = network.config.dynamics.levels[-1]
    # The rules of the tangents choose their own types.
    with torch.autocast(source.device.type, enabled=False):
        maps = perturbation_heatmaps(network, source, target, level=level, tokens=[token])
    size = source.shape[-2:]
    grey = to_bytes(target).mean(-1, keepdims=True)  # (images, height, width, 1)
    drawn = []
    for image, heat in zip(grey, maps[:, 0].float().cpu().numpy(), strict=True):
        share = np.clip(smoothed(heat, size) / max(heat.max(), 1e-12), 0, 1)
        opacity = HEAT_OPACITY * share[..., None]
        colours = 255 * colormaps[HEAT_COLOURS](share)[..., :3]
        drawn.append(np.rint((1 - opacity) * image + opacity * colours).astype(np.uint8))
    return _joined(_marked(to_bytes(source), token, (rows, columns)), np.stack(drawn))


def _marked(images: Picture, token: int, grid: tuple[int, int]) -> Picture:
    """Draw the border of a patch into images (N, H, W, 3)."""
    height, width = (side // count for side, count in zip(images.shape[1:3], grid, strict=True))
    top, left = token // grid[1] * height, token % grid[1] * width
    marked = images.copy()
    bottom, right = top + height - 1, left + width - 1
    for row in (top, bottom):
        marked[:, row, left : right + 1] = (0, 224, 0)
    for column in (left, right):
        marked[:, top : bottom + 1, column] = (0, 224, 0)
    return marked


def _joined(*rows: Picture) -> Picture:
    """Join rows of images (N, H, W, 3) to one picture."""
    return np.concatenate([np.concatenate([*row], axis=1) for row in rows])
