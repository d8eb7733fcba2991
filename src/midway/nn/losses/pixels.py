"""Pixel targets of masked autoencoders: patches, their normalisation, and the error."""

from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from midway.nn.masking import gather_tokens

EPS = 1e-6
Patches = Float[Tensor, "batch patches pixels"]


def patchify(images: Float[Tensor, "batch 3 height width"], patch_size: int) -> Patches:
    """Cut images into patches row by row, each with values in row, column, channel order."""
    return patchify_clip(images.unsqueeze(1), patch_size, length=1)


def patchify_clip(
    frames: Float[Tensor, "batch frames 3 height width"], patch_size: int, *, length: int
) -> Patches:
    """Cut clips into cuboids of `length` frames, slice by slice and row by row (VideoMAE).

    Args:
        frames: Sides are multiples of the patch size.
        patch_size: Height and width of a cuboid in pixels.
        length: Frames of a cuboid; the number of frames is a multiple of it.

    Returns:
        Values of each cuboid in frame, row, column, channel order.

    """
    # (batch, slices, length, 3, rows, patch, columns, patch)
    cut = frames.unflatten(1, (-1, length))
    cut = cut.unflatten(4, (-1, patch_size)).unflatten(6, (-1, patch_size))
    # -> (batch, slices, rows, columns, length, patch, patch, 3)
    return cut.permute(0, 1, 4, 6, 2, 5, 7, 3).flatten(4).flatten(1, 3)


def normalise_patches(patches: Patches) -> Patches:
    """Normalise each patch by one mean and deviation of all its values (MAE, CroCo).

    The variance is unbiased, and `EPS` is added to it.
    """
    mean, variance = patches.mean(-1, keepdim=True), patches.var(-1, keepdim=True)
    return (patches - mean) / (variance + EPS).sqrt()


def normalise_patches_by_colour(patches: Patches) -> Patches:
    """Normalise each colour of a patch by its own mean and deviation (VideoMAE).

    The variance is unbiased, and `EPS` is added to the deviation.
    """
    colours = patches.unflatten(-1, (-1, 3))  # (batch, patches, positions, 3)
    mean, deviation = colours.mean(2, keepdim=True), colours.std(2, keepdim=True)
    return ((colours - mean) / (deviation + EPS)).flatten(2)


def masked_mse(
    predicted: Float[Tensor, "batch masked pixels"],
    targets: Patches,
    masked: Int[Tensor, "batch masked"],
) -> Float[Tensor, ""]:
    """Return the mean squared error of the masked patches, in float32.

    Predicting zero everywhere costs about 1 for normalised targets.

    Args:
        predicted: Values of the masked patches only.
        targets: Values of all patches.
        masked: Indices of the masked patches, in the order of `predicted`.

    """
    return F.mse_loss(predicted.float(), gather_tokens(targets, masked).float())
