"""Throughput of a run, and its bottleneck: data, communication or compute."""

import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import torch
from lightning_fabric.utilities.throughput import get_available_flops
from torch.nn.parallel import DistributedDataParallel

NOTICEABLE = 0.1
"""Smallest fraction of the run time at which waiting counts as the bottleneck."""

_CHIPS = frozenset({"a10g", "a100", "h100", "l4", "t4", "v100"})
"""Chips with their dense peak in Fabric's table. For GeForce, A40 and A6000 it contains the peak of
CUDA cores, and for H100 NVL and H200 that of sparse products."""


class Meter:
    """Measures throughput, waiting time and FLOP/s of a run between two readings.

    Args:
        model: Objective, wrapped by Fabric for its devices.
        world_size: Number of processes.
        flops_per_sample: Forward and backward; None if unknown.
        peak_flops: Peak of one device in FLOP/s; None if unknown.

    """

    def __init__(
        self,
        model: Any,
        *,
        world_size: int,
        flops_per_sample: float | None,
        peak_flops: float | None = None,
    ) -> None:
        # Fabric has no public name for the DDP module inside its wrapper.
        self._wrapper = getattr(model, "_forward_module", None)
        self._world_size = world_size
        self._flops_per_sample = flops_per_sample
        self._peak_flops = peak_flops
        self._seconds_in_all = self._data_in_all = self._communication_in_all = 0.0
        self._is_settled = False
        self._clear()

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the enclosed block as waiting for data."""
        start = perf_counter()
        yield
        self._seconds_waited += perf_counter() - start

    @contextmanager
    def apart(self) -> Iterator[None]:
        """Exclude the enclosed block from the throughput measurement."""
        start = perf_counter()
        yield
        # Moving the start forward removes the time from this reading and from the total.
        self._start += perf_counter() - start

    def count(self, samples: int) -> None:
        """Add the samples of one step, over all ranks."""
        self._samples += samples
        self._steps += 1

    def read(self) -> dict[str, float]:
        """Return the speeds since the last reading; call it after the device has synchronised.

        ``tflops_per_second`` is per device, and ``mfu`` (model FLOPs utilisation) its ratio to the
        peak of the device, in [0, 1].
        """
        seconds = perf_counter() - self._start
        samples_per_second = self._samples / seconds
        speeds = {
            "samples_per_second": samples_per_second,
            "data_wait_share": self._seconds_waited / seconds,
        }
        if self._flops_per_sample is not None:
            flops = self._flops_per_sample * samples_per_second / self._world_size
            speeds["tflops_per_second"] = flops / 1e12
            if self._peak_flops is not None:
                speeds["mfu"] = flops / self._peak_flops
        if self._world_size > 1:
            # DDP's estimate covers other steps than these, so it may exceed the time measured.
            communicated = min(seconds, self._steps * exposed_seconds(self._wrapper))
            speeds["communication_wait_share"] = communicated / seconds
            self._communication_in_all += self._is_settled * communicated
        # The first reading is not counted: loaders start and kernels warm up in it.
        self._seconds_in_all += self._is_settled * seconds
        self._data_in_all += self._is_settled * self._seconds_waited
        self._is_settled = True
        self._clear()
        return speeds

    def limit(self) -> str:
        """Return one line that names the bottleneck of the run.

        The time before the first reading is excluded; without a second one, the line says so.
        """
        if not (whole := self._seconds_in_all):
            return "too short to tell what limits it: speeds count from the second log line"
        shares = {"data": self._data_in_all / whole}
        if self._world_size > 1:
            shares["communication"] = self._communication_in_all / whole
        worst = max(shares, key=lambda name: shares[name])
        limit = worst if shares[worst] >= NOTICEABLE else "compute"
        waits = ", ".join(f"{share:.0%} of the time for {name}" for name, share in shares.items())
        return f"limited by {limit}; the run waited {waits}"

    def _clear(self) -> None:
        self._start, self._samples, self._steps, self._seconds_waited = perf_counter(), 0, 0, 0.0


def peak_flops(device: torch.device, dtype: torch.dtype) -> float | None:
    """Return the published peak of a chip in FLOP/s for dense matrix products, from Fabric's table.

    Args:
        device: Device of the run.
        dtype: Type of the factors.

    Returns:
        None for a CPU, and for a chip or type that is not in the table.

    """
    if device.type != "cuda":
        return None
    words = {*re.split(r"[\s-]+", torch.cuda.get_device_name(device).lower())}
    if not words & _CHIPS or "nvl" in words:
        return None
    with warnings.catch_warnings():
        # Fabric warns if the table has no entry; here that is no fault.
        warnings.simplefilter("ignore")
        return get_available_flops(device, dtype)


def exposed_seconds(wrapper: Any) -> float:
    """Return the seconds per step of gradient exchange that the backward pass does not hide.

    DDP measures them in the first ten backward passes with an exchange, then in every hundredth.
    The value is 0 without DDP.
    """
    if not isinstance(wrapper, DistributedDataParallel):
        return 0.0
    timings = wrapper._get_ddp_logging_data()
    communication = timings.get("avg_backward_comm_time", 0)
    overlap = timings.get("avg_backward_compute_comm_overlap_time", 0)
    return max(0, communication - overlap) / 1e9  # nanoseconds to seconds
