"""The bounded Laplacian loss of dense regression (CroCo v2's published code)."""

import torch
from jaxtyping import Float
from torch import Tensor

SCALE_BOUNDS = (0.25, 4.0)
"""Least and largest scale of the distribution, in pixels."""
LONGEST_PIXELS = 10_000
"""Longer flow does not count."""


def bounded_laplacian(
    output: Float[Tensor, "batch 3 height width"], flow: Float[Tensor, "batch 2 height width"]
) -> Float[Tensor, ""]:
    """Negative log-likelihood of flow, less ln 2, averaged over the known pixels of the batch.

    Each pixel costs (|u - u*| + |v - v*|) / s + ln s with s = 0.25 + 3.75 sigmoid(c). With no
    known pixel the loss is 0, decided on the device.

    Args:
        output: u, v and the raw uncertainty c.
        flow: The truth; not finite where it is not known.

    Example:
        >>> import torch
        >>> bounded_laplacian(torch.zeros(1, 3, 2, 2), torch.zeros(1, 2, 2, 2)).exp()
        tensor(2.1250)

    """
    low, high = SCALE_BOUNDS
    scale = low + (high - low) * output[:, 2].sigmoid()
    known = is_valid(flow)
    truth = torch.where(known[:, None], flow, 0)
    each = (output[:, :2] - truth).abs().sum(1) / scale + scale.log()
    return torch.where(known, each, 0).sum() / known.sum().clamp(min=1)


def is_valid(flow: Float[Tensor, "batch 2 height width"]) -> Tensor:
    """Pixels that count in training: known, and not absurdly long; (batch, height, width)."""
    return flow.isfinite().all(1) & (torch.linalg.vector_norm(flow, dim=1) < LONGEST_PIXELS)
