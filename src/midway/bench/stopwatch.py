"""Timing of work that runs asynchronously on a device."""

import time
from collections.abc import Callable
from statistics import median

import torch


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Measure wall-clock seconds; the device is synchronised before and after."""
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


def median_seconds(work: Callable[[], object], device: torch.device, *, repeats: int) -> float:
    """Return the median of `repeats` timings after an untimed call, in seconds."""
    times = [seconds_of(work, device) for _ in range(1 + repeats)]
    return median(times[1:])


def both_clocks(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Measure wall-clock seconds, and CPU seconds of this process summed over its cores."""
    start = time.process_time()
    wall = seconds_of(work, device)
    return wall, time.process_time() - start


def wait_for(device: torch.device) -> None:
    """Wait until the device is idle."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
