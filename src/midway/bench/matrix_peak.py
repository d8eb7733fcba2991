"""Peak throughput of matrix products on this machine, the reference for the training step."""

from functools import partial

import torch
from torch import Tensor

from midway.bench.stopwatch import seconds_of
from midway.nn.linear import linear

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192, 16384)}
"""Sides of the square matrices, by type of device."""
_REPEATS = 20
"""Number of timings; the fastest counts, so that other work on the machine has little effect."""


@torch.no_grad()
def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Measure the operations per second of the fastest dense product of two square matrices.

    Args:
        device: Device of the matrices.
        dtype: Type of the matrices, `torch.float32` or `torch.bfloat16`.

    """
    best = 0.0
    for size in SIZES.get(device.type, SIZES["cpu"]):
        a, b = (torch.randn(size, size, device=device, dtype=dtype) for _ in range(2))
        product = partial(_products, a, b, 10 if device.type == "cuda" else 1)
        product()
        times = [seconds_of(product, device) for _ in range(_REPEATS)]
        count = 10 if device.type == "cuda" else 1
        best = max(best, count * 2 * size**3 / min(times))
    return best


def _products(a: Tensor, b: Tensor, count: int) -> None:
    for _ in range(count):
        linear(a, b)
