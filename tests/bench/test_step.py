"""The figures of the step benchmark are consistent."""

from types import SimpleNamespace

import pytest
import torch

from midway.bench import step as step_module
from midway.bench.step import StepBenchmark
from midway.experiments.synthetic import BOTH_TERMS as CONFIG

CPU = torch.device("cpu")


def test_rates_shares_and_parts_are_consistent() -> None:
    benchmark = StepBenchmark(
        config=CONFIG,
        batch_size=2,
        device=CPU,
        compile=False,
        recompute=False,
        repeats=1,
        announce=lambda text: None,
    )
    times = benchmark.run(None)
    assert times.samples_per_second == pytest.approx(2 / times.seconds_per_step)
    assert times.flops_per_second == pytest.approx(
        times.flops_per_sample * times.samples_per_second
    )
    assert times.share_of_peak > 0
    assert times.peak_memory_bytes > 2**24
    assert min(times.parts.values()) > 0
    assert {"student 224", "local crops", "teacher", "optimiser", "EMA", "views"} < set(times.parts)


def test_peak_memory_is_of_bytes_though_linux_counts_kib_and_macos_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(step_module.resource, "getrusage", lambda whose: used)
    monkeypatch.setattr(step_module.sys, "platform", "linux")
    assert step_module._peak_memory(CPU) == 3 * 2**30
    monkeypatch.setattr(step_module.sys, "platform", "darwin")
    assert step_module._peak_memory(CPU) == 3 * 2**20
