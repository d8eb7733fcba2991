"""Linear segmentation in windows: each patch is described by a crop around it.

A window has the size of a small training crop, where a whole frame has many times its patches, and
its class token describes one place.
"""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.evals.probes.linear import (
    WEIGHT_DECAY,
    as_input,
    class_shares,
    fit_logistic,
    upsampled_classes,
)
from midway.models.encoders.base import Encoder, Images, patch_grid
from midway.models.encoders.vit import VisionTransformer
from midway.nn.eval_mode import evaluating


def window_classes(
    encoder: Encoder,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    side: int,
    class_token: bool = True,
) -> Tensor:
    """Fit a linear probe to the windows of training images; return the classes of test images.

    Args:
        encoder: Frozen encoder; its mode is restored.
        train: Images, uint8 of shape (N, H, W, 3), and labels of shape (N, H, W).
        test: The same; only the size of the labels is used.
        num_classes: Number of classes.
        side: Side of the windows in pixels.
        class_token: As for `window_features`.

    Returns:
        Class ids as uint8, shape (N, H, W).

    Raises:
        MidwayError: Side, images or labels do not fit the patches.

    """
    features = window_features(encoder, train[0], side, class_token=class_token)
    grid = (features.shape[1], features.shape[2])
    shares = class_shares(train[1], grid, num_classes)
    probe = fit_logistic(features.flatten(0, 2), shares, weight_decay=WEIGHT_DECAY)
    features = window_features(encoder, test[0], side, class_token=class_token)
    size = (test[1].shape[1], test[1].shape[2])
    return torch.cat([upsampled_classes(probe(each[None]), size) for each in features])


def window_features(
    encoder: Encoder, images: Tensor, side: int, *, class_token: bool = True
) -> Float[Tensor, "images rows columns dim"]:
    """Describe each patch by the top level of a window around it, reflected at the borders.

    The features are the mean of the window's patches and the mean of its four middle patches,
    after the window's class token if the encoder is a ViT. Encoders with and without a class token
    have equal features only if `class_token` is False.

    Args:
        encoder: Run in evaluation mode; its mode is restored.
        images: uint8 of shape (N, H, W, 3).
        side: Side of a window in pixels, an even number of patches.
        class_token: If False, leave the class token out.

    Raises:
        MidwayError: The side is no even number of patches or too large for the images, or the
            patches do not divide the images.

    """
    (stride,) = encoder.strides((-1,))
    before = (side - stride) // 2
    _check(images, side, stride)
    found = []
    with evaluating(encoder):
        for image in images:
            padding = 2 * [before, side - stride - before]
            around = F.pad(as_input(image[None], encoder), padding, "reflect")
            # (1, 3, rows, columns, side, side)
            windows = around.unfold(2, side, stride).unfold(3, side, stride)
            rows, columns = windows.shape[2:4]
            cut = windows[0].permute(1, 2, 0, 3, 4).flatten(0, 1)
            described = _described(encoder, cut, class_token=class_token)
            found.append(described.unflatten(0, (rows, columns)))
    return torch.stack(found)


def _check(images: Tensor, side: int, stride: int) -> None:
    if side < 2 * stride or side % (2 * stride):
        raise MidwayError(
            f"windows of {side} pixels: have no four patches in their middle; give "
            f"{2 * stride} or a multiple of it"
        )
    patch_grid(images.permute(0, 3, 1, 2), stride)
    height, width = images.shape[1:3]
    if (side - stride + 1) // 2 >= min(height, width):
        raise MidwayError(
            f"windows of {side} pixels: are too large for images of {height}x{width}; give less"
        )


def _described(
    encoder: Encoder, windows: Images, *, class_token: bool
) -> Float[Tensor, "batch dim"]:
    """Return class token, mean and middle of the top level."""
    first: list[Tensor] = []
    if class_token and isinstance(encoder, VisionTransformer):
        (tokens,) = encoder.levels(windows, (-1,))
        first, maps = [tokens[:, 0]], tokens[:, 1:].transpose(1, 2)
        maps = maps.unflatten(2, encoder.grid(windows))
    else:
        (maps,) = encoder.maps(windows, (-1,))
    rows, columns = maps.shape[2:]
    middle = maps[:, :, rows // 2 - 1 : rows // 2 + 1, columns // 2 - 1 : columns // 2 + 1]
    return torch.cat([*first, maps.mean((2, 3)), middle.mean((2, 3))], dim=1)
