"""Segmentation by a linear probe on frozen patch features: fit in seconds, without seeds.

The probe is fitted to what share of a patch each class covers, so that no label is upsampled or
thrown away; its logits are stretched to the size of the labels before the decision. This is the
quick readout, not the protocol behind the paper's tables.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midway.data.segmentation.classes import IGNORE
from midway.errors import MidwayError
from midway.evals.metrics.segmentation import SegmentationScore, confusion_matrix, score_of
from midway.models.encoders.base import Encoder
from midway.models.heads.upernet import at_one_size
from midway.nn.eval_mode import evaluating
from midway.nn.images import normalise

MIN_DEVIATION = 1e-6
"""Least deviation that features are divided by: constant ones stay small."""
HISTORY = 20
"""Steps that L-BFGS remembers."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbe:
    """An affine map from features to logits or numbers."""

    weight: Tensor
    """Shape (outputs, dim)."""
    bias: Tensor
    """Shape (outputs,)."""

    def __call__(self, features: Tensor) -> Tensor:
        """Outputs of shape (..., outputs) for features of shape (..., dim)."""
        return F.linear(features, self.weight, self.bias)

    def before(self, mean: Tensor, deviation: Tensor) -> "LinearProbe":
        """The probe for raw features, given this one for features standardised by these."""
        weight = self.weight / deviation
        return LinearProbe(weight=weight, bias=self.bias - weight @ mean)


def linear_segmentation(
    encoder: Encoder,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    levels: Sequence[int] | None = None,
    weight_decay: float = 1e-3,
    batch_size: int = 64,
) -> tuple[SegmentationScore, Tensor]:
    """Fit a linear probe on training images and score it on test images.

    Args:
        encoder: Frozen; its mode is restored.
        train: Images as for `patch_features`, and labels (N, H, W) with classes from 0, and
            `IGNORE`. Labels may be larger than the images if patches still cut them evenly.
        test: Likewise, of any label size.
        num_classes: At most 255.
        levels: Encoder levels to read, concatenated; the top one if None.
        weight_decay: Of the probe, on standardised features.
        batch_size: Images encoded at a time.

    Returns:
        The score, and the predicted test labels (N, H, W) as 8-bit class ids on the CPU.

    Raises:
        MidwayError: Labels that are no classes, that patches do not cut evenly, or all ignored.

    """
    levels = (-1,) if levels is None else levels
    (train_images, train_labels), (test_images, test_labels) = train, test
    features = patch_features(encoder, train_images, levels, batch_size=batch_size)
    shares = class_shares(train_labels, _grid(encoder, train_images, levels), num_classes)
    probe = fit_logistic(features.flatten(0, 1), shares, weight_decay=weight_decay)
    features = patch_features(encoder, test_images, levels, batch_size=batch_size)
    size = (test_labels.shape[1], test_labels.shape[2])
    maps = features.unflatten(1, _grid(encoder, test_images, levels)).split(batch_size)
    predictions = torch.cat([_upsampled_classes(probe(batch), size) for batch in maps])
    return segmentation_score(predictions, test_labels, num_classes), predictions


def patch_features(
    encoder: Encoder, images: Tensor, levels: Sequence[int], *, batch_size: int = 64
) -> Tensor:
    """Features of the patches, without gradient and without the class token.

    Args:
        encoder: Evaluated in evaluation mode, which is undone after.
        images: uint8 of shape (N, H, W, 3), or ImageNet-normalised floats of shape (N, 3, H, W).
        levels: Encoder levels, 1-based or negative from the top, concatenated along the channels;
            coarser maps are resized to the finest.
        batch_size: Images at a time.

    Returns:
        Shape (N, rows * columns, levels * dim), on the encoder's device.

    """
    with evaluating(encoder):
        return torch.cat(
            [
                _patches(encoder.maps(as_input(batch, encoder), levels))
                for batch in images.split(batch_size)
            ]
        )


def as_input(images: Tensor, module: nn.Module) -> Tensor:
    """Images as the module takes them, on its device: 8-bit (N, H, W, 3) are normalised."""
    parameter = next(module.parameters())
    images = images.to(parameter.device)
    if images.dtype == torch.uint8:
        images = normalise(images.permute(0, 3, 1, 2) / 255)
    return images.to(parameter.dtype)


def class_shares(labels: Tensor, grid: tuple[int, int], num_classes: int) -> Tensor:
    """Share of each patch that each class covers.

    Args:
        labels: Classes of shape (N, H, W).
        grid: Rows and columns of patches that an image is cut into.
        num_classes: Without `IGNORE`, whose pixels are missing in the sums.

    Returns:
        Shape (N * rows * columns, num_classes).

    Raises:
        MidwayError: Labels that are no classes, or that the grid does not cut evenly.

    """
    _check_classes(labels, num_classes)
    height, width = labels.shape[1:]
    if height % grid[0] or width % grid[1]:
        raise MidwayError(
            f"training labels of {height}x{width} pixels: {grid[0]}x{grid[1]} patches do not cut "
            "them evenly; crop or resize them with their images"
        )
    tiles = labels.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).transpose(2, 3)
    classes = tiles.flatten(3).flatten(0, 2).long()
    classes = classes.where(classes != IGNORE, num_classes)
    ones = torch.ones((), device=labels.device).expand(classes.shape)
    counts = ones.new_zeros(len(classes), num_classes + 1).scatter_add_(1, classes, ones)
    return counts[:, :num_classes] / classes.shape[1]


def fit_logistic(
    features: Tensor, shares: Tensor, *, weight_decay: float, iterations: int = 50
) -> LinearProbe:
    """Multinomial logistic regression on standardised features, from zero by L-BFGS.

    Args:
        features: Shape (samples, dim).
        shares: Soft labels of shape (samples, classes); their sum is the weight of the sample.
        weight_decay: Factor on half the squared weights, beside the mean cross-entropy.
        iterations: Of L-BFGS, at most.

    Raises:
        MidwayError: No sample has a weight.

    """
    if not shares.any():
        raise MidwayError("linear probe: no training pixel has a class; check the labels")
    mean = features.mean(0)
    deviation = features.std(0, correction=0).clamp(min=MIN_DEVIATION)
    features = (features - mean) / deviation
    shares = shares.to(features) / shares.sum()
    weight = features.new_zeros(shares.shape[1], features.shape[1], requires_grad=True)
    bias = features.new_zeros(shares.shape[1], requires_grad=True)
    optimizer = torch.optim.LBFGS(
        (weight, bias), max_iter=iterations, history_size=HISTORY, line_search_fn="strong_wolfe"
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        log_likelihood = (shares * F.linear(features, weight, bias).log_softmax(1)).sum()
        total = weight_decay / 2 * weight.square().sum() - log_likelihood
        total.backward()
        return total.detach()

    optimizer.step(loss)
    return LinearProbe(weight=weight.detach(), bias=bias.detach()).before(mean, deviation)


def segmentation_score(predictions: Tensor, labels: Tensor, num_classes: int) -> SegmentationScore:
    """Score of predicted classes against labels of the same shape, all pixels taken together.

    Raises:
        MidwayError: Labels that are no classes, or all ignored.

    """
    _check_classes(labels, num_classes)
    if (labels == IGNORE).all():
        raise MidwayError("segmentation score: no pixel has a class; check the labels")
    return score_of(confusion_matrix(predictions, labels.to(predictions.device), num_classes))


def _check_classes(labels: Tensor, num_classes: int) -> None:
    wrong = labels[(labels != IGNORE) & ((labels < 0) | (labels >= num_classes))]
    if len(wrong):
        raise MidwayError(
            f"label {int(wrong[0])} is no class of 0 to {num_classes - 1}; correct the labels, or "
            f"set them to {IGNORE} to ignore them"
        )


def _patches(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps and list their cells row by row, shape (N, rows * columns, channels)."""
    cells = [each.flatten(2).transpose(1, 2) for each in at_one_size(maps)]
    return torch.cat(cells, dim=2)


def _grid(encoder: Encoder, images: Tensor, levels: Sequence[int]) -> tuple[int, int]:
    height, width = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:]
    stride = min(encoder.strides(levels))
    return height // stride, width // stride


def _upsampled_classes(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Likeliest classes (N, *size) from logits (N, rows, columns, classes)."""
    logits = F.interpolate(logits.permute(0, 3, 1, 2), size, mode="bilinear")
    return logits.argmax(1).to(torch.uint8).cpu()
