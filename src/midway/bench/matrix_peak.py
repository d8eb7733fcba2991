"""The most that this machine does of matrix products, which a training step is held against."""

from functools import partial

import torch
from torch import Tensor

from midway.bench.stopwatch import seconds_of
from midway.nn.linear import linear

SIZES = {"cpu": (1024, 2048), "cuda": (4096, 8192, 16384)}
"""Sides of the square matrices that are multiplied."""
_REPEATS = 20
"""Long enough that other work on the machine does not take its share of all of them."""


@torch.no_grad()
def matrix_peak(device: torch.device, dtype: torch.dtype) -> float:
    """Operations a second of the fastest dense product of two square matrices, as measured.

    Args:
        device: Where.
        dtype: Of the matrices, `torch.float32` or `torch.bfloat16`.

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
