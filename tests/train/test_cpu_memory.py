"""What is freed stays with the process, or goes back, as is asked for."""

import ctypes
import resource
from pathlib import Path

import pytest
import torch

from midway.train.cpu_memory import give_freed_memory_back, keep_freed_memory

_STATM = Path("/proc/self/statm")


def _resident_bytes() -> int:
    return int(_STATM.read_text().split()[1]) * resource.getpagesize()


def _bytes_left_of(num_bytes: int) -> int:
    """Bytes that are still there when a tensor of this size is freed."""
    before = _resident_bytes()
    tensor = torch.ones(num_bytes, dtype=torch.uint8)
    del tensor
    return _resident_bytes() - before


@pytest.mark.skipif(
    not (hasattr(ctypes.CDLL(None), "mallopt") and _STATM.exists()), reason="needs glibc on Linux"
)
def test_freed_memory_goes_back_or_is_kept_for_the_next_step() -> None:
    size = 2**29  # larger than what earlier tests may have left behind
    give_freed_memory_back()
    assert _bytes_left_of(size) < size / 10
    keep_freed_memory()
    try:
        assert _bytes_left_of(size) > size / 2
    finally:
        give_freed_memory_back()
