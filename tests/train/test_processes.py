"""Trainings in processes of their own: killed, stopped, and two at once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from midway.train.checkpoint import latest_checkpoint

from .toy import Toy, ToyLoader, losses, run_config, train

pytestmark = pytest.mark.usefixtures("one_thread")
TOY = Path(__file__).with_name("toy.py")


def start(*arguments: str | Path, ranks: int = 1) -> int:
    launcher = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    command = [sys.executable, *(launcher if ranks > 1 else []), str(TOY), *map(str, arguments)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    return subprocess.run(command, env=environment, timeout=120).returncode


def newest(folder: Path) -> str:
    path = latest_checkpoint(folder)
    assert path is not None
    return path.name


@pytest.mark.slow
def test_a_killed_run_resumes_to_the_loss_curve_of_an_uninterrupted_one(tmp_path):
    killed, whole = tmp_path / "killed", tmp_path / "whole"
    assert start(killed, "--dropout=0.5", "--kind=SIGKILL", "--stop-step=6") == -9
    assert [step for step, _, _ in losses(killed)] == [1, 2, 3, 4, 5, 6]
    assert newest(killed) == "step_00000004.ckpt"
    train(run_config(killed), resume=True)
    train(run_config(whole))
    assert losses(killed) == losses(whole)


@pytest.mark.slow
def test_two_ranks_stop_together_resume_and_equal_one_with_twice_the_batch(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    assert start(two, "--kind=SIGTERM", "--stop-step=5", "--stop-rank=1", ranks=2) == 0
    for rank in range(2):
        summary = json.loads((two / f"summary_{rank}.json").read_text())
        assert summary == {"steps": 6, "interrupted": True}
    assert newest(two) == "step_00000006.ckpt"

    assert start(two, "--resume", ranks=2) == 0
    states = [torch.load(two / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    train(run_config(one), ToyLoader(batch_size=16), toy=Toy(p_dropout=0))
    for ours, reference in zip(losses(two), losses(one), strict=True):
        assert ours == pytest.approx(reference, rel=1e-5)
