"""Dense forward prediction error (eq. 1)."""

from collections.abc import Iterable
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def normalized_mse(
    predicted: Float[Tensor, "batch tokens dim"], target: Float[Tensor, "batch tokens dim"]
) -> Float[Tensor, ""]:
    """Return the squared distance between unit-length features, averaged over tokens (eq. 1).

    It equals ``2 - 2 * cosine`` and lies in [0, 4] for any `dim`.

    Args:
        predicted: Features of the target that the forward model predicts.
        target: Features of the target by the teacher; they get no gradient.

    Examples:
        >>> import torch
        >>> x = torch.eye(2).expand(1, 2, 2)
        >>> normalized_mse(x, -x)
        tensor(4.)

    """
    # ||a/|a| - b/|b|||^2 = 2 - 2 cos(a, b); in float32, because autocast would give bfloat16.
    cosine = F.cosine_similarity(predicted.float(), target.detach().float(), dim=-1)
    return (2 - 2 * cosine).mean()


def mean_or_sum(
    losses: Iterable[Float[Tensor, ""]], over: Literal["mean", "sum"]
) -> Float[Tensor, ""]:
    """Reduce the dense losses of all levels: mean in the paper, sum in the release."""
    levels = torch.stack([*losses])
    return levels.mean() if over == "mean" else levels.sum()
