"""Time of work that may run on a device behind the host's back."""

import time
from collections.abc import Callable
from statistics import median

import torch


def seconds_of(work: Callable[[], object], device: torch.device) -> float:
    """Seconds by the clock on the wall, from an idle device to an idle device."""
    wait_for(device)
    start = time.perf_counter()
    work()
    wait_for(device)
    return time.perf_counter() - start


def median_seconds(
    work: Callable[[], object], device: torch.device, *, repeats: int, warmup: int = 1
) -> float:
    """Median of `repeats` times, after `warmup` that do not count."""
    times = [seconds_of(work, device) for _ in range(warmup + repeats)]
    return median(times[warmup:])


def both_clocks(work: Callable[[], object], device: torch.device) -> tuple[float, float]:
    """Seconds by the clock on the wall, and those that this process had on all its cores."""
    start = time.process_time()
    wall = seconds_of(work, device)
    return wall, time.process_time() - start


def wait_for(device: torch.device) -> None:
    """Return when the device has done all that it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
