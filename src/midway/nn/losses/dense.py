"""Dense forward prediction error (eq. 1)."""

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

    Example:
        >>> import torch
        >>> x = torch.eye(2).expand(1, 2, 2)
        >>> normalized_mse(x, -x)
        tensor(4.)

    """
    # ||a/|a| - b/|b|||^2 = 2 - 2 cos(a, b); in float32, because autocast would give bfloat16.
    cosine = F.cosine_similarity(predicted.float(), target.detach().float(), dim=-1)
    return (2 - 2 * cosine).mean()
