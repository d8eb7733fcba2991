"""Equivariance of dense features to optical flow (PooDLe)."""

from typing import Literal

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.nn.warp import AffineView, follow, is_inside, is_visible, pixels, sample

WarpOrder = Literal["consistent", "released"]


def equivariance_loss(
    predicted: Float[Tensor, "batch dim rows columns"],
    seen: Float[Tensor, "batch dim rows columns"],
    *,
    own: AffineView,
    others: AffineView,
    forward: Float[Tensor, "batch 2 height width"],
    backward: Float[Tensor, "batch 2 height width"],
    order: WarpOrder = "consistent",
    every: int = 1,
) -> tuple[Tensor, Tensor]:
    """Compare features of the source with those of the target at the ends of the flow.

    Points that are occluded, or outside of the target or of a view, do not count.

    Args:
        predicted: Student's map of the view `own` of the source.
        seen: Teacher's map of the view `others` of the target; gets no gradient.
        own: Affine view of the source.
        others: Affine view of the target.
        forward: Flow from source to target in pixels, finite.
        backward: Flow from target to source in pixels, finite.
        order: Undo the affine view and then follow the flow ("consistent"), or the reverse.
        every: Distance of the compared points in pixels.

    Returns:
        Mean over images of the mean squared distance of unit vectors, in [0, 4]; and the share of
        points that count.

    """
    size = own.size
    start = pixels(size, forward.device, every=every).expand(len(forward), -1, -1, -1)
    here = own.to_view(start)
    counts = is_visible(forward, backward, every=every) & is_inside(here, size)
    if order == "consistent":
        there = others.to_view(follow(start, forward, size))
        counts = counts & is_inside(there, size)
    else:
        turned = others.turned(start)
        counts = counts & is_inside(turned, size)
        there = others.flipped(follow(turned, forward, size))
    # Features are interpolated once, at the composed points, so that they are not blurred twice.
    distance = squared_distance(
        sample(predicted.float(), here, size), sample(seen.detach().float(), there, size)
    )  # (batch, points down, points across)
    weights = counts.to(distance.dtype)
    total = (weights * distance).sum((1, 2)) / (weights.sum((1, 2)) + 1e-7)
    return total.mean(), weights.mean()


def squared_distance(
    one: Float[Tensor, "batch dim *places"], other: Float[Tensor, "batch dim *places"]
) -> Float[Tensor, "batch *places"]:
    """Return the squared distance of unit vectors along the channels: 2 - 2 * cosine."""
    # In float32, because autocast would give bfloat16.
    return 2 - 2 * F.cosine_similarity(one.float(), other.float(), dim=1)
