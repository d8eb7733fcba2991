import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Event

import pytest
import torch

from midway.errors import MidwayError
from midway.train import launch as launch_module
from midway.train.launch import Interruption, end_processes, launch, lost_ranks_named
from midway.train.run import autocast

from .toy import ToyBatch, ToyLoader, losses, run_config, train


def test_the_numbers_of_slurm_hold_against_those_of_the_config(tmp_path, monkeypatch):
    job = {"NTASKS": 1, "NNODES": 1, "PROCID": 0, "LOCALID": 0, "JOB_NAME": "train"}
    for name, value in job.items():
        monkeypatch.setenv(f"SLURM_{name}", str(value))
    fabric = launch(run_config(tmp_path, devices=4, num_nodes=2))
    assert (fabric.world_size, fabric.device.type) == (1, "cpu")


def test_missing_gpus_are_an_error_that_says_so(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(MidwayError, match=r"1 found, 2 wanted; set --run\.devices"):
        launch(run_config(tmp_path, accelerator="gpu", devices=2))


def test_full_precision_computes_in_full_precision(tmp_path):
    x = torch.ones(2, 2)
    with autocast(x.device, run_config(tmp_path, precision="32-true")):
        assert (x @ x).dtype == torch.float32
    with autocast(x.device, run_config(tmp_path, precision="bf16-mixed")):
        assert (x @ x).dtype == torch.bfloat16


def test_the_first_interrupt_asks_and_the_second_stops_at_once():
    with Interruption() as interruption:
        assert not interruption.requested()
        os.kill(os.getpid(), signal.SIGINT)
        assert interruption.requested()
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


@dataclass
class StuckLoader(ToyLoader):
    """The batch of `stuck_step` never comes; the process is asked to stop while it waits."""

    stuck_step: int = 6

    def batches(self, start_step: int, stop_step: int) -> Iterator[ToyBatch]:
        for step, batch in enumerate(super().batches(start_step, stop_step), start_step):
            if step == self.stuck_step:
                os.kill(os.getpid(), signal.SIGTERM)
                Event().wait()
            yield batch


@pytest.mark.timeout(60)
def test_a_signal_ends_the_wait_for_a_batch_that_never_comes(tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "PATIENCE_SECONDS", 0.5)
    summary = train(run_config(tmp_path / "stuck"), StuckLoader())
    assert (summary.steps, summary.interrupted) == (6, True)
    assert summary.checkpoint == tmp_path / "stuck/checkpoints/step_00000006.ckpt"
    train(run_config(tmp_path / "stuck"), resume=True)
    train(run_config(tmp_path / "whole"))
    assert losses(tmp_path / "stuck") == losses(tmp_path / "whole")


@pytest.mark.timeout(60)
def test_a_run_that_is_stuck_at_its_start_stops_without_a_checkpoint(tmp_path, monkeypatch):
    monkeypatch.setattr(launch_module, "PATIENCE_SECONDS", 0.5)
    summary = train(run_config(tmp_path), StuckLoader(stuck_step=0))
    assert (summary.steps, summary.interrupted, summary.checkpoint) == (0, True, None)


@pytest.mark.timeout(60)
def test_a_process_of_a_run_that_is_stopped_does_not_outlive_it():
    commands = ["pass", "import time; time.sleep(600)"]
    ended, stopped = (subprocess.Popen([sys.executable, "-c", each]) for each in commands)
    stopped.send_signal(signal.SIGSTOP)
    ended.wait()
    end_processes([ended, stopped], patience_seconds=0.2)
    assert (ended.returncode, stopped.returncode) == (0, -signal.SIGKILL)


def test_a_lost_rank_is_one_line_and_other_errors_stay_as_they_are(tmp_path):
    gloo = RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer")
    with (
        pytest.raises(MidwayError, match=r"another process .* ended .*--resume "),
        lost_ranks_named(tmp_path),
    ):
        raise gloo
    with pytest.raises(RuntimeError, match="sizes differ"), lost_ranks_named(tmp_path):
        raise RuntimeError("sizes differ")
