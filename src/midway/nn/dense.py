"""The dense forward prediction error."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def normalized_mse(
    predicted: Float[Tensor, "batch tokens dim"], target: Float[Tensor, "batch tokens dim"]
) -> Float[Tensor, ""]:
    """Squared distance between unit-length features, averaged over tokens (eq. 1).

    Equal to ``2 - 2 * cosine``, so it lies in [0, 4] whatever `dim` is.

    Args:
        predicted: What the forward model says the target frame looks like.
        target: What the teacher saw there; no gradient reaches it.

    Example:
        >>> import torch
        >>> x = torch.eye(2).expand(1, 2, 2)
        >>> normalized_mse(x, -x)
        tensor(4.)

    """
    cosine = F.cosine_similarity(predicted.float(), target.detach().float(), dim=-1)
    return (2 - 2 * cosine).mean()
