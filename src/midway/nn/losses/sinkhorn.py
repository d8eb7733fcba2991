"""Sinkhorn-Knopp: assignments of samples to prototypes in equal shares, computed in logarithms."""

import torch
from jaxtyping import Float
from torch import Tensor

from midway.nn.device import logsumexp_over_ranks


@torch.no_grad()
def sinkhorn_knopp(
    logits: Float[Tensor, "*batch samples prototypes"],
    *,
    rounds: int,
    across_ranks: bool = False,
) -> Float[Tensor, "*batch samples prototypes"]:
    """Return soft assignments in which all prototypes have about the same total (SwAV, section 3).

    Each round scales every prototype to an equal share of the samples, then every sample to a total
    of 1. Only the second holds exactly at the end; with enough rounds, both do. The factors stay
    logarithms, so that logits of any span give neither NaN nor a sample without a prototype: in
    linear float32, a sample whose logits lie 104 below the largest is 0 everywhere.

    Args:
        logits: Similarities over the temperature; leading axes are independent problems. Half
            precision is computed in float32.
        rounds: Number of rounds; 0 gives the plain softmax of each sample.
        across_ranks: If True, the samples of all ranks form one problem, as in DINO's centring.

    Returns:
        Assignments without gradient; each sample sums to 1, each prototype to about samples /
        prototypes.

    Examples:
        >>> import torch
        >>> logits = torch.tensor([[902.0, 0.0], [900.0, 0.0]])  # both samples prefer the first
        >>> sinkhorn_knopp(logits, rounds=30).round(decimals=3)
        tensor([[0.7310, 0.2690],
                [0.2690, 0.7310]])

    """
    scaled = logits.to(torch.promote_types(logits.dtype, torch.float32))
    # Logarithm of each prototype's total, by which it is divided.
    totals = scaled.new_zeros(scaled.shape[-1])
    for number in range(rounds):
        # The first round starts from the raw kernel exp(logits), later ones from scaled samples.
        rows = (scaled - totals).logsumexp(-1, keepdim=True) if number else 0  # (..., samples, 1)
        totals = (scaled - rows).logsumexp(-2, keepdim=True)  # (..., 1, prototypes)
        if across_ranks:
            totals = logsumexp_over_ranks(totals)
    # The softmax scales every sample to 1, the second half of the last round.
    return (scaled - totals).softmax(-1)
