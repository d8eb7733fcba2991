"""Bounded Laplacian loss of dense regression (CroCo v2's published code)."""

import torch
from jaxtyping import Float
from torch import Tensor

SCALE_BOUNDS = (0.25, 4.0)
"""Smallest and largest scale of the distribution, in pixels."""
LONGEST_PIXELS = 10_000
"""Longer flow is excluded from training."""


def bounded_laplacian(
    output: Float[Tensor, "batch 3 height width"], flow: Float[Tensor, "batch 2 height width"]
) -> Float[Tensor, ""]:
    """Return the negative log-likelihood of flow, minus ln 2, averaged over the valid pixels.

    A pixel contributes (|u - u*| + |v - v*|) / s + ln s, with s = 0.25 + 3.75 sigmoid(c). Without
    any valid pixel the loss is 0.

    Args:
        output: u, v and the raw uncertainty c.
        flow: Ground truth (u*, v*) in pixels; not finite where unknown.

    Examples:
        >>> import torch
        >>> bounded_laplacian(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, 2)).exp()
        tensor(2.1250)

    """
    low, high = SCALE_BOUNDS
    scale = low + (high - low) * output[:, 2].sigmoid()
    known = is_valid(flow)
    # Replaced before the difference: NaN * 0 in the backward pass would still be NaN.
    truth = torch.where(known[:, None], flow, 0)
    each = (output[:, :2] - truth).abs().sum(1) / scale + scale.log()  # (batch, height, width)
    # The host does not read the number of valid pixels, so it does not wait for the device.
    return torch.where(known, each, 0).sum() / known.sum().clamp(min=1)


def is_valid(flow: Float[Tensor, "batch 2 height width"]) -> Tensor:
    """Return the mask (batch, height, width) of flow that is known and short enough to train on."""
    return flow.isfinite().all(1) & (torch.linalg.vector_norm(flow, dim=1) < LONGEST_PIXELS)
