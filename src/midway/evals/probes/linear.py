"""Linear probes of frozen patch features, fitted deterministically in seconds by L-BFGS.

The segmentation probe is fitted to the share of each patch that each class covers, so no label is
resampled or discarded. Its logits are upsampled to the size of the labels before the argmax. The
paper's tables use the protocols in `midway.evals.readouts.segmentation_protocols` instead.
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
"""Lower bound of the standard deviation that features are divided by; constant features stay near
0."""
HISTORY, ITERATIONS = 20, 50
"""History size and largest number of iterations of L-BFGS."""
WEIGHT_DECAY = 1e-3
"""Weight decay of segmentation probes, on standardised features."""
BATCH = 64
"""Images of a forward pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LinearProbe:
    """Affine map from features to logits or regression targets."""

    weight: Tensor
    """Shape (outputs, dim)."""
    bias: Tensor
    """Shape (outputs,)."""

    def __call__(self, features: Tensor) -> Tensor:
        """Map features of shape (..., dim) to outputs of shape (..., outputs)."""
        return F.linear(features, self.weight, self.bias)

    def before(self, mean: Tensor, deviation: Tensor) -> "LinearProbe":
        """Return the equivalent probe for raw features, with the standardisation folded in."""
        weight = self.weight / deviation
        return LinearProbe(weight=weight, bias=self.bias - weight @ mean)


def linear_segmentation(
    encoder: Encoder,
    train: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    num_classes: int,
    *,
    levels: Sequence[int] | None = None,
) -> tuple[SegmentationScore, Tensor]:
    """Fit a linear probe on training images and score it on test images.

    Args:
        encoder: Frozen encoder; its mode is restored.
        train: Images as for `patch_features`, and labels of shape (N, H, W) with class ids from 0,
            or `IGNORE`. Labels may be larger than the images if the patch grid divides them.
        test: Images and labels; labels may have any size.
        num_classes: Number of classes, at most 255.
        levels: Encoder levels whose features are concatenated; the top level if None.

    Returns:
        The score, and the predicted class ids as uint8 of shape (N, H, W) on the CPU.

    Raises:
        MidwayError: A label is out of range, the patch grid does not divide the labels, or all
            labels are ignored.

    """
    levels = (-1,) if levels is None else levels
    (train_images, train_labels), (test_images, test_labels) = train, test
    features = patch_features(encoder, train_images, levels)
    shares = class_shares(train_labels, _grid(encoder, train_images, levels), num_classes)
    probe = fit_logistic(features.flatten(0, 1), shares, weight_decay=WEIGHT_DECAY)
    features = patch_features(encoder, test_images, levels)
    size = (test_labels.shape[1], test_labels.shape[2])
    maps = features.unflatten(1, _grid(encoder, test_images, levels)).split(BATCH)
    predictions = torch.cat([upsampled_classes(probe(batch), size) for batch in maps])
    return segmentation_score(predictions, test_labels, num_classes), predictions


def patch_features(
    encoder: Encoder, images: Tensor, levels: Sequence[int], *, batch_size: int = BATCH
) -> Tensor:
    """Return patch features, without gradient and without the class token.

    Args:
        encoder: Run in evaluation mode; its mode is restored.
        images: uint8 of shape (N, H, W, 3), or ImageNet-normalised floats of shape (N, 3, H, W).
        levels: Encoder levels, 1-based or negative from the top, concatenated along the channels;
            coarser maps are resized to the finest.
        batch_size: Images per forward pass.

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
    """Convert images to a module's device and dtype; normalise uint8 images (N, H, W, 3).

    Returns:
        ImageNet-normalised floats of shape (N, 3, H, W).
    """
    parameter = next(module.parameters())
    images = images.to(parameter.device)
    if images.dtype == torch.uint8:
        images = normalise(images.permute(0, 3, 1, 2) / 255)
    return images.to(parameter.dtype)


def class_shares(labels: Tensor, grid: tuple[int, int], num_classes: int) -> Tensor:
    """Return the share of each patch that each class covers.

    Args:
        labels: Class ids of shape (N, H, W).
        grid: Rows and columns of patches of an image.
        num_classes: Number of classes without `IGNORE`. Shares of a patch with ignored pixels sum
            to less than 1.

    Returns:
        Shape (N * rows * columns, num_classes).

    Raises:
        MidwayError: A label is out of range, or the grid does not divide the labels.

    """
    _check_classes(labels, num_classes)
    height, width = labels.shape[1:]
    if height % grid[0] or width % grid[1]:
        raise MidwayError(
            f"training labels of {height}x{width} pixels: {grid[0]}x{grid[1]} patches do not "
            "divide them; crop or resize them with their images"
        )
    # (N, H, W) to (N, rows, columns, height of a patch, width of a patch)
    tiles = labels.unflatten(2, (grid[1], -1)).unflatten(1, (grid[0], -1)).transpose(2, 3)
    # (N * rows * columns, pixels of a patch)
    classes = tiles.flatten(3).flatten(0, 2).long()
    # Ignored pixels are counted in an extra column, which is cut off.
    classes = classes.where(classes != IGNORE, num_classes)
    ones = torch.ones((), device=labels.device).expand(classes.shape)
    counts = ones.new_zeros(len(classes), num_classes + 1).scatter_add_(1, classes, ones)
    return counts[:, :num_classes] / classes.shape[1]


def fit_logistic(features: Tensor, shares: Tensor, *, weight_decay: float) -> LinearProbe:
    """Fit multinomial logistic regression on standardised features by L-BFGS, starting at zero.

    Args:
        features: Features of shape (samples, dim).
        shares: Soft labels of shape (samples, classes); their sum weights the sample.
        weight_decay: Coefficient of half the squared weights, added to the mean cross-entropy.

    Returns:
        A probe for features that are not standardised.

    Raises:
        MidwayError: All samples have weight 0.

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
        (weight, bias), max_iter=ITERATIONS, history_size=HISTORY, line_search_fn="strong_wolfe"
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
    """Score predicted classes against labels of the same shape, over all pixels.

    Raises:
        MidwayError: A label is out of range, or all are ignored.

    """
    _check_classes(labels, num_classes)
    if (labels == IGNORE).all():
        raise MidwayError("segmentation score: no pixel has a class; check the labels")
    return score_of(confusion_matrix(predictions, labels.to(predictions.device), num_classes))


def _check_classes(labels: Tensor, num_classes: int) -> None:
    wrong = labels[(labels != IGNORE) & ((labels < 0) | (labels >= num_classes))]
    if len(wrong):
        raise MidwayError(
            f"label {int(wrong[0])}: is outside 0 to {num_classes - 1}; correct the labels, or set "
            f"them to {IGNORE} to ignore them"
        )


def _patches(maps: Sequence[Tensor]) -> Tensor:
    """Concatenate maps (N, channels, rows, columns) to (N, rows * columns, channels)."""
    cells = [each.flatten(2).transpose(1, 2) for each in at_one_size(maps)]
    return torch.cat(cells, dim=2)


def _grid(encoder: Encoder, images: Tensor, levels: Sequence[int]) -> tuple[int, int]:
    height, width = images.shape[1:3] if images.dtype == torch.uint8 else images.shape[2:]
    stride = min(encoder.strides(levels))
    return height // stride, width // stride


def upsampled_classes(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Return the argmax classes (N, *size) of logits (N, rows, columns, classes)."""
    logits = F.interpolate(logits.permute(0, 3, 1, 2), size, mode="bilinear")
    return logits.argmax(1).to(torch.uint8).cpu()
