"""Reductions over the processes of a run; the identity when there is only one."""

from jaxtyping import Float
from torch import Tensor, distributed


def mean_over_ranks(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Mean of `x` over all ranks, without gradient; `x` itself in a single process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return x
    total = x.detach().clone()
    distributed.all_reduce(total)
    return total / distributed.get_world_size()
