"""RAFT, the large model (Teed and Deng, 2020), with torchvision's names of its tensors.

It serves as a frozen source of optical flow. Images are in [-1, 1], as in torchvision; the original
takes 0 to 255 and converts them itself, so that for images in [0, 1] both see ``2 * image - 1``.
"""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.flow.raft_layers import (
    LEVELS,
    RADIUS,
    STRIDE,
    FeatureEncoder,
    MaskPredictor,
    UpdateBlock,
)

SMALLEST = STRIDE * 2 ** (LEVELS - 1)
"""Smallest side of an image in pixels: the coarsest level then has one cell."""

Images = Float[Tensor, "batch 3 height width"]
Flow = Float[Tensor, "batch 2 height width"]


class Raft(nn.Module):
    """Optical flow by recurrent refinement with lookups in the correlation of all pairs.

    Evaluation mode is the right one for a frozen network: in training mode, the batch norms of
    the context encoder normalise by the batch, and flow depends on the other samples.

    Args:
        iterations: Number of refinements; 12 in training and 24 in PooDLe.

    """

    def __init__(self, *, iterations: int = 12) -> None:
        super().__init__()
        self.iterations = iterations
        self.feature_encoder = FeatureEncoder(nn.InstanceNorm2d)
        self.context_encoder = FeatureEncoder(nn.BatchNorm2d)
        self.update_block = UpdateBlock()
        self.mask_predictor = MaskPredictor()

    def forward(self, source: Images, target: Images) -> Flow:
        """Return the flow from source to target in pixels (u right, v down).

        Args:
            source: Values in [-1, 1]; sides are multiples of 8, and 64 or more.
            target: Same shape.

        Raises:
            MidwayError: The sides of the images do not fit.

        """
        _check_sides(source)
        features = self.feature_encoder(torch.cat([source, target])).chunk(2)
        return self._refine(source, *features)

    def both_ways(self, source: Images, target: Images) -> tuple[Flow, Flow]:
        """Return the flow from source to target, and from target to source.

        Equal to two calls, but the features of each image are computed once.
        """
        _check_sides(source)
        images = torch.cat([source, target])
        features = self.feature_encoder(images)  # (2 * batch, 256, rows, columns)
        swapped = torch.cat(features.chunk(2)[::-1])
        forward, backward = self._refine(images, features, swapped).chunk(2)
        return forward, backward

    def _refine(self, source: Tensor, features: Tensor, target_features: Tensor) -> Tensor:
        pyramid = correlation_pyramid(features, target_features)
        hidden, context = self.context_encoder(source).chunk(2, dim=1)
        hidden, context = hidden.tanh(), F.relu(context)  # (batch, 128, rows, columns) each
        origin = _cells(features)  # (2, rows, columns)
        flow = features.new_zeros(len(features), 2, *features.shape[2:])
        for _ in range(self.iterations):
            seen = look_up(pyramid, origin + flow)  # (batch, 324, rows, columns)
            hidden, step = self.update_block(hidden, context, seen, flow)
            flow = flow + step
        # The original upsamples after each iteration, for its loss; the last flow is the same.
        return upsample(flow, self.mask_predictor(hidden))


def correlation_pyramid(
    source: Float[Tensor, "batch dim rows columns"], target: Float[Tensor, "batch dim rows columns"]
) -> list[Tensor]:
    """Return the scaled dot products of all pairs of cells, averaged over ever larger targets.

    Returns:
        `LEVELS` tensors of shape (batch * rows * columns, 1, target rows, target columns).

    """
    batch, dim, rows, columns = source.shape
    pairs = torch.bmm(source.flatten(2).transpose(1, 2), target.flatten(2)) / dim**0.5
    level = pairs.reshape(batch * rows * columns, 1, rows, columns)
    pyramid = [level]
    for _ in range(LEVELS - 1):
        level = F.avg_pool2d(level, kernel_size=2)
        pyramid.append(level)
    return pyramid


def look_up(
    pyramid: list[Tensor], places: Float[Tensor, "batch 2 rows columns"]
) -> Float[Tensor, "batch window rows columns"]:
    """Return the correlations in a window round a place of the target, at each level.

    Values between cells are interpolated, and are 0 outside of the target.

    Args:
        pyramid: Output of `correlation_pyramid`.
        places: Position (x, y) in the target for each cell of the source, in cells.

    Returns:
        ``LEVELS * (2 * RADIUS + 1)^2`` values per cell: by level, then by x, then by y.

    """
    batch, _, rows, columns = places.shape
    steps = torch.arange(-RADIUS, RADIUS + 1, device=places.device, dtype=places.dtype)
    # The published weights expect windows with x along the first axis.
    window = torch.stack(torch.meshgrid(steps, steps, indexing="ij"), dim=-1)  # (9, 9, 2)
    centres = places.permute(0, 2, 3, 1).reshape(-1, 1, 1, 2)
    found = []
    for number, level in enumerate(pyramid):
        x, y = (centres / 2**number + window).unbind(-1)  # (batch * rows * columns, 9, 9)
        height, width = level.shape[2:]
        # Measured from the outer edges, so that a level of one cell has no division by 0.
        grid = torch.stack([(2 * x + 1) / width - 1, (2 * y + 1) / height - 1], dim=-1)
        values = F.grid_sample(level, grid, align_corners=False)
        found.append(values.reshape(batch, rows, columns, -1))
    return torch.cat(found, dim=-1).permute(0, 3, 1, 2).contiguous()


def upsample(
    flow: Float[Tensor, "batch 2 rows columns"], mask: Float[Tensor, "batch 576 rows columns"]
) -> Flow:
    """Upsample flow by convex combinations of the 3 x 3 cells round each pixel (section 3.3).

    Args:
        flow: In cells.
        mask: Logits of the weights: by neighbour, then by row and column inside the cell.

    Returns:
        Flow in pixels.

    """
    rows, columns = flow.shape[2:]
    weights = mask.unflatten(1, (9, STRIDE, STRIDE)).softmax(1)  # (batch, 9, 8, 8, rows, columns)
    neighbours = F.unfold(STRIDE * flow, 3, padding=1).unflatten(1, (2, 9))
    neighbours = neighbours.unflatten(3, (rows, columns))  # (batch, 2, 9, rows, columns)
    fine = torch.einsum("bnijrc,bdnrc->bdricj", weights, neighbours)
    return fine.reshape(len(flow), 2, STRIDE * rows, STRIDE * columns)


def _check_sides(images: Tensor) -> None:
    height, width = images.shape[-2:]
    if height % STRIDE or width % STRIDE or min(height, width) < SMALLEST:
        raise MidwayError(
            f"RAFT: images of {height}x{width} pixels; give sides that are multiples of {STRIDE}, "
            f"and {SMALLEST} or more"
        )


def _cells(features: Tensor) -> Tensor:
    """Return the position (x, y) of each cell, shape (2, rows, columns)."""
    rows, columns = (
        torch.arange(n, device=features.device, dtype=features.dtype) for n in features.shape[2:]
    )
    return torch.stack(torch.meshgrid(columns, rows, indexing="xy"))
