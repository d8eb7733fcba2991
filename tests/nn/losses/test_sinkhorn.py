"""Sinkhorn-Knopp: marginals, wide logits, a loop in float64, and two ranks against one."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor

from midway.nn.losses.sinkhorn import sinkhorn_knopp


def _logits(*shape: int, span: float) -> Tensor:
    """Normal logits, stretched to a range of exactly `span`."""
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    return (x - x.min()) / (x.max() - x.min()) * span


def _log_sum(values: list[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def _slow(logits: Tensor, rounds: int) -> Tensor:
    """One entry after another: objects to 1 / K of the mass, patches to 1 / N, at last to 1."""
    x = logits.double().tolist()
    samples, prototypes = range(len(x)), range(len(x[0]))
    for _ in range(rounds):
        for k in prototypes:
            total = _log_sum([x[n][k] for n in samples]) + math.log(len(prototypes))
            for n in samples:
                x[n][k] -= total
        for n in samples:
            total = _log_sum(x[n]) + math.log(len(samples))
            x[n] = [value - total for value in x[n]]
    return torch.tensor(x, dtype=torch.float64).exp() * len(x)


@pytest.mark.parametrize("span", [8.0, 1000.0])
@pytest.mark.parametrize("rounds", [1, 3, 30])
def test_it_equals_a_slow_loop_in_float64(span: float, rounds: int) -> None:
    logits = _logits(2, 20, 3, span=span)
    slow = torch.stack([_slow(each, rounds) for each in logits])
    # float32 resolves logits of 1,000 to 6e-5, which is the relative error of their exponentials.
    torch.testing.assert_close(
        sinkhorn_knopp(logits, rounds=rounds).double(), slow, atol=1e-3, rtol=0
    )
    exact = sinkhorn_knopp(logits.double(), rounds=rounds)
    torch.testing.assert_close(exact, slow, atol=1e-10, rtol=1e-8)


@pytest.mark.parametrize(("span", "rounds"), [(8.0, 30), (1000.0, 2000)])
def test_both_marginals_are_equal_after_enough_rounds(span: float, rounds: int) -> None:
    found = sinkhorn_knopp(_logits(4, 30, 3, span=span), rounds=rounds)
    torch.testing.assert_close(found.sum(-1), torch.ones(4, 30))
    torch.testing.assert_close(found.sum(-2), torch.full((4, 3), 10.0), atol=0.02, rtol=0)


def test_wide_logits_leave_no_sample_without_a_prototype() -> None:
    found = sinkhorn_knopp(_logits(196, 3, span=1000.0), rounds=30)
    assert found.isfinite().all()
    torch.testing.assert_close(found.sum(-1), torch.ones(196))
    # In linear float32 the same logits give NaN: the reason for logarithms.
    linear = (_logits(196, 3, span=1000.0) - 1000).exp()
    assert (linear / linear.sum(-1, keepdim=True)).isnan().any()


def test_without_rounds_it_is_the_softmax() -> None:
    logits = _logits(5, 4, span=8.0)
    torch.testing.assert_close(sinkhorn_knopp(logits, rounds=0), logits.softmax(-1))


def test_half_precision_is_computed_in_float32_and_nothing_gets_a_gradient() -> None:
    logits = _logits(5, 4, span=8.0).bfloat16().requires_grad_()
    found = sinkhorn_knopp(logits, rounds=3)
    assert found.dtype == torch.float32
    assert not found.requires_grad
    torch.testing.assert_close(found, sinkhorn_knopp(logits.float(), rounds=3))


TWO_RANKS = """
import sys
import torch
from torch import distributed
from midway.nn.losses.sinkhorn import sinkhorn_knopp

rank, folder = int(sys.argv[1]), sys.argv[2]
distributed.init_process_group("gloo", f"file://{folder}/store", rank=rank, world_size=2)
logits = torch.load(f"{folder}/logits.pt").chunk(2)[rank]
torch.save(sinkhorn_knopp(logits, rounds=3, across_ranks=True), f"{folder}/{rank}.pt")
distributed.destroy_process_group()
"""


@pytest.mark.slow
def test_the_samples_of_two_ranks_form_one_problem(tmp_path: Path) -> None:
    logits = _logits(8, 5, span=1000.0)
    torch.save(logits, tmp_path / "logits.pt")
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    commands = [[sys.executable, "-c", TWO_RANKS, str(rank), str(tmp_path)] for rank in range(2)]
    processes = [subprocess.Popen(command, env=environment) for command in commands]
    assert [process.wait(timeout=60) for process in processes] == [0, 0]
    found = torch.cat([torch.load(tmp_path / f"{rank}.pt") for rank in range(2)])
    torch.testing.assert_close(found, sinkhorn_knopp(logits, rounds=3), atol=1e-3, rtol=0)
    # Each on its own, they would share their few samples among the prototypes otherwise.
    alone = torch.cat([sinkhorn_knopp(each, rounds=3) for each in logits.chunk(2)])
    assert (alone - found).abs().max() > 0.1
