"""Device of evaluations and commands (Fabric selects that of training); threads; reductions."""

import os
from typing import TYPE_CHECKING, Literal

import torch
from jaxtyping import Float
from torch import Tensor, distributed

if TYPE_CHECKING:
    from lightning_fabric import Fabric

Accelerator = Literal["auto", "cpu"]


def pick_device(accelerator: Accelerator = "auto") -> torch.device:
    """Return the current CUDA device if "auto" is given and there is one, else the CPU."""
    use_gpu = accelerator == "auto" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")


def limit_threads(cores: int) -> None:
    """Limit torch's threads to a number of cores, unless ``OMP_NUM_THREADS`` is set.

    The threads of an operator wait for the slowest of them. One thread too many, on a core that
    another process uses, slows all of them down (docs/PERFORMANCE.md).

    Args:
        cores: Cores that this process may use, from `midway.cores`.

    """
    # Fabric and torchrun set the variable too, when several processes share a machine.
    if "OMP_NUM_THREADS" not in os.environ and torch.get_num_threads() > cores:
        torch.set_num_threads(cores)


def num_ranks() -> int:
    """Return the number of processes of this training; 1 in a single process."""
    if not (distributed.is_available() and distributed.is_initialized()):
        return 1
    return distributed.get_world_size()


def ranks(fabric: "Fabric") -> dict[str, int]:
    """Return rank and world size, as dataloaders take them."""
    return {"rank": fabric.global_rank, "world_size": fabric.world_size}


def mean_over_ranks(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the mean of `x` over all ranks, without gradient; `x` itself in a single process."""
    if (number := num_ranks()) == 1:
        return x
    total = x.detach().clone()
    distributed.all_reduce(total)
    return total / number


def logsumexp_over_ranks(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return log(sum(exp(x))) over all ranks, without gradient; `x` itself in a single process."""
    if num_ranks() == 1:
        return x
    # The largest is subtracted, because exp overflows above 88 in float32.
    largest = x.detach().clone()
    distributed.all_reduce(largest, distributed.ReduceOp.MAX)
    total = (x.detach() - largest).exp()
    distributed.all_reduce(total)
    return largest + total.log()
