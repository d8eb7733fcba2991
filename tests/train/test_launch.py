import os
import signal

import pytest
import torch

from midway.errors import MidwayError
from midway.train.launch import Interruption, launch
from midway.train.run import autocast

from .toy import run_config


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
