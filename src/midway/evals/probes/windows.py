"""Linear segmentation in windows: each patch is described by a crop around it, as in training.

A network that was trained on crops of four by four patches sees a whole frame of ten times as many
at test time. In windows it sees what it was trained on, and its class token belongs to one place.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.evals.probes.linear import (
    as_input,
    class_shares,
    fit_logistic,
    upsampled_classes,
)
from midway.models.encoders.base import Encoder, Images
from midway.models.encoders.vit import VisionTransformer
from midway.nn.eval_mode import evaluating


def window_classes(
    encoder: Encoder,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    side: int,
    weight_decay: float = 1e-3,
) -> Tensor:
    """Fit a linear probe to the windows of training images; return the classes of test images.

    Args:
        encoder: Frozen encoder; its mode is restored.
        train: Images, uint8 of shape (N, H, W, 3), and labels of shape (N, H, W).
        test: The same; only the size of the labels is used.
        num_classes: Number of classes.
        side: Side of the windows in pixels.
        weight_decay: Weight decay of the probe, on standardised features.

    Returns:
        Class ids as uint8, shape (N, H, W).

    Raises:
        MidwayError: The side is no even number of patches, or labels do not fit.

    """
    features = window_features(encoder, train[0], side)
    grid = (features.shape[1], features.shape[2])
    shares = class_shares(train[1], grid, num_classes)
    probe = fit_logistic(features.flatten(0, 2), shares, weight_decay=weight_decay)
    features, size = window_features(encoder, test[0], side), (test[1].shape[1], test[1].shape[2])
    return torch.cat([upsampled_classes(probe(each[None]), size) for each in features])


def window_features(
    encoder: Encoder, images: Tensor, side: int
) -> Float[Tensor, "images rows columns dim"]:
    """Describe each patch by the top level of a window around it, reflected at the borders.

    The features are the window's class token, for a ViT, the mean of its patches, and the mean of
    the four patches in its middle.

    Args:
        encoder: Run in evaluation mode; its mode is restored.
        images: uint8 of shape (N, H, W, 3); sides are multiples of the stride.
        side: Side of a window in pixels, an even number of patches.

    Raises:
        MidwayError: The side is no even number of patches.

    """
    stride = encoder.stride
    if side < 2 * stride or side % (2 * stride):
        raise MidwayError(f"windows of {side} pixels: give a multiple of {2 * stride}")
    found = []
    with evaluating(encoder):
        for image in images:
            around = F.pad(as_input(image[None], encoder), 4 * [(side - stride) // 2], "reflect")
            # (1, 3, rows, columns, side, side)
            windows = around.unfold(2, side, stride).unfold(3, side, stride)
            rows, columns = windows.shape[2:4]
            cut = windows[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
            found.append(_described(encoder, cut).unflatten(0, (rows, columns)))
    return torch.stack(found)


def _described(encoder: Encoder, windows: Images) -> Float[Tensor, "batch dim"]:
    """Return class token, mean and middle of the top level."""
    if isinstance(encoder, VisionTransformer):
        (tokens,) = encoder.levels(windows, (-1,))
        rows, columns = encoder.grid(windows)
        first, maps = [tokens[:, 0]], tokens[:, 1:].transpose(1, 2).unflatten(2, (rows, columns))
    else:
        (maps,) = encoder.maps(windows, (-1,))
        first, (rows, columns) = [], maps.shape[2:]
    middle = maps[:, :, rows // 2 - 1 : rows // 2 + 1, columns // 2 - 1 : columns // 2 + 1]
    return torch.cat([*first, maps.mean((2, 3)), middle.mean((2, 3))], dim=1)
