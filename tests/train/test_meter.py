"""What a run says of what limits it, against times that are known."""

import os
import socket

import pytest
import torch
from torch import distributed, nn
from torch.nn.parallel import DistributedDataParallel

from midway.train import meter as module
from midway.train.meter import Meter, exposed_seconds, peak_flops


class Clock:
    """A clock that only goes when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Wrapped:
    _forward_module = None


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(module, "perf_counter", clock)
    return clock


def _run(meter: Meter, clock: Clock, *, data: float, step: float) -> dict[str, float]:
    for _ in range(10):
        with meter.waiting():
            clock.now += data
        clock.now += step
        meter.count(8)
    return meter.read()


def test_a_slow_loader_limits_a_run_and_a_quick_one_does_not(clock: Clock) -> None:
    meter = Meter(Wrapped(), world_size=1, flops_per_sample=1e9)
    _run(meter, clock, data=5.0, step=1.0)  # the start, which does not count
    speeds = _run(meter, clock, data=0.3, step=0.7)
    assert speeds["data_wait_share"] == pytest.approx(0.3)
    assert speeds["samples_per_second"] == pytest.approx(8)
    assert speeds["tflops_per_second"] == pytest.approx(8e-3)
    assert meter.limit().startswith("limited by data; the run waited 30% of the time for data")
    # The verdict is on the whole run, not on what was read last.
    for _ in range(9):
        _run(meter, clock, data=0.0, step=1.0)
    assert meter.limit() == "limited by compute; the run waited 3% of the time for data"


def test_a_run_of_one_reading_has_no_known_limit(clock: Clock) -> None:
    meter = Meter(Wrapped(), world_size=1, flops_per_sample=None)
    _run(meter, clock, data=5.0, step=1.0)
    assert meter.limit().startswith("too short to tell")


def test_what_is_apart_slows_nothing_down(clock: Clock) -> None:
    meter = Meter(Wrapped(), world_size=1, flops_per_sample=None)
    with meter.apart():
        clock.now += 100
    speeds = _run(meter, clock, data=0.3, step=0.7)
    assert speeds == {
        "data_wait_share": pytest.approx(0.3),
        "samples_per_second": pytest.approx(8),
    }


def test_mfu_is_the_arithmetic_of_one_device_by_its_peak(clock: Clock) -> None:
    meter = Meter(Wrapped(), world_size=2, flops_per_sample=1e9, peak_flops=16e9)
    assert _run(meter, clock, data=0.3, step=0.7)["mfu"] == pytest.approx(0.25)


@pytest.mark.parametrize(
    ("name", "dtype", "peak"),
    [
        ("NVIDIA A100-SXM4-80GB", torch.bfloat16, 312e12),
        ("NVIDIA H100 80GB HBM3", torch.float16, 989.4e12),
        ("Tesla T4", torch.bfloat16, None),  # has no bfloat16
        ("NVIDIA H100 NVL", torch.bfloat16, None),  # Fabric has the number of sparse products
        ("NVIDIA RTX A1000", torch.bfloat16, None),  # Fabric takes it for an A100
        ("NVIDIA L40S", torch.bfloat16, None),  # and this for an L4
        ("Radeon", torch.float32, None),
    ],
)
def test_the_peak_is_known_for_some_chips_and_its_absence_is_no_warning(
    monkeypatch: pytest.MonkeyPatch, name: str, dtype: torch.dtype, peak: float | None
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: name)
    assert peak_flops(torch.device("cuda"), dtype) == peak
    assert peak_flops(torch.device("cpu"), dtype) is None


def test_what_is_exchanged_when_nothing_is_left_to_compute_limits_a_run_of_two(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "exposed_seconds", lambda wrapper: 0.25)
    meter = Meter(Wrapped(), world_size=2, flops_per_sample=None)
    _run(meter, clock, data=5.0, step=1.0)
    assert _run(meter, clock, data=0.1, step=0.9)["communication_wait_share"] == 0.25
    assert meter.limit() == (
        "limited by communication; the run waited 10% of the time for data, "
        "25% of the time for communication"
    )


def test_ddp_tells_how_long_it_communicates_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert exposed_seconds(None) == 0
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"tcp://127.0.0.1:{port}"
    monkeypatch.setitem(os.environ, "GLOO_SOCKET_IFNAME", "lo")
    distributed.init_process_group("gloo", init_method=address, rank=0, world_size=1)
    try:
        ddp = DistributedDataParallel(nn.Linear(4, 4))
        for _ in range(4):
            ddp(torch.randn(2, 4)).sum().backward()
        told = ddp._get_ddp_logging_data()
        assert told["avg_backward_comm_time"] > 0
        assert 0 <= exposed_seconds(ddp) <= told["avg_backward_comm_time"] / 1e9
    finally:
        distributed.destroy_process_group()
