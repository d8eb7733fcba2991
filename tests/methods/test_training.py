"""Every method trains, resumes bit for bit, and trains on two ranks."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.data.views.render import example_clips
from midway.experiments.base import Experiment, clip_loader, train
from midway.methods.base import build_method
from midway.registry import find
from midway.train.checkpoint import latest_checkpoint
from midway.train.objective import Progress
from midway.train.run import step_seed

from .short_runs import METHODS, STEPS, resume_half_way, short_run

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    world = WorldConfig(height=48, width=64, num_frames=40, fps=20, num_objects=2)
    rng = np.random.default_rng(0)
    for video in write_videos(folder, world, seeds=range(3)):
        # For methods that read actions.
        rows = {"seconds": np.arange(40) / 20, "action": rng.normal(size=(40, 2))}
        np.savez(video.with_suffix(".signals.npz"), **rows)
    return folder


@pytest.fixture(scope="module")
def two_ranks(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of all methods, in two processes for all of them: starting one takes seconds."""
    runs = tmp_path_factory.mktemp("two_ranks")
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, "-m", "tests.methods.short_runs", str(videos), str(runs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    root = Path(__file__).parents[2]
    done = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return runs


@pytest.fixture(scope="module")
def one_rank(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("one_rank")


def whole_run(method: str, videos: Path, one_rank: Path) -> Experiment:
    """Train a method on one rank, unless a test before this one in the same process has."""
    experiment = short_run(method, videos, one_rank / method / "whole")
    if not experiment.run.folder.exists():
        train(experiment)
    return experiment


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint
    return torch.load(checkpoint, weights_only=True)["model"]


def losses_of(folder: Path) -> list[float]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def assert_resumed_bit_for_bit(runs: Path) -> None:
    whole, parts = weights_of(runs / "whole"), weights_of(runs / "parts")
    assert all(torch.equal(whole[name], tensor) for name, tensor in parts.items())
    assert losses_of(runs / "whole") == losses_of(runs / "parts")
    assert len(set(losses_of(runs / "whole"))) == STEPS


def draws_numbers(method: str) -> bool:
    """Whether a loss draws random numbers, such as masks, which differ between ranks."""
    built = build_method(find("midway.methods", method).METHOD.Config.tiny())
    clips, found = example_clips(built.spec, 2), []
    for seed in range(2):
        torch.manual_seed(seed)
        with torch.no_grad():
            found.append(built.loss(clips).loss)
    return not torch.equal(*found)


@pytest.mark.parametrize("method", METHODS)
def test_it_trains_and_resumes_bit_for_bit(method: str, videos: Path, one_rank: Path) -> None:
    experiment = whole_run(method, videos, one_rank)
    resume_half_way(experiment, one_rank / method / "parts")
    assert_resumed_bit_for_bit(one_rank / method)


@pytest.mark.parametrize("method", METHODS)
def test_two_ranks_resume_bit_for_bit_and_have_the_losses_of_one(
    method: str, videos: Path, one_rank: Path, two_ranks: Path
) -> None:
    assert_resumed_bit_for_bit(two_ranks / method)
    found = losses_of(two_ranks / method / "whole")
    if not draws_numbers(method):
        whole_run(method, videos, one_rank)
        assert found == pytest.approx(losses_of(one_rank / method / "whole"), rel=1e-4)
        return
    # Each rank draws its own numbers: from the weights after two steps, the loss of the third is
    # the mean of those of two single processes with the seeds and the samples of the ranks.
    half = two_ranks / method / "whole" / "checkpoints" / f"step_{STEPS // 2:08d}.ckpt"
    experiment = short_run(method, videos, two_ranks / method / "single")
    line = (two_ranks / method / "whole" / "metrics.jsonl").read_text().splitlines()[STEPS // 2]
    logged = json.loads(line)

    def mean_of_ranks(name: str, shift: int) -> float:
        return sum(numbers[rank, shift][name] for rank in range(2)) / 2

    numbers = {
        (rank, shift): numbers_of_rank(experiment, half, rank, drawn_by=rank + shift)
        for rank in range(2)
        for shift in range(4)
    }
    for name in numbers[0, 0]:
        assert logged[name] == pytest.approx(mean_of_ranks(name, 0), rel=1e-5)
    # Numbers of other ranks would show; a few may be alike, as DoRA draws two of three heads.
    assert any(
        logged[name] != pytest.approx(mean_of_ranks(name, shift), rel=1e-5)
        for name in numbers[0, 0]
        for shift in range(1, 4)
    )


def numbers_of_rank(
    experiment: Experiment, checkpoint: Path, rank: int, *, drawn_by: int
) -> dict[str, float]:
    """Return what one of two ranks logs in the step after a checkpoint, in a single process."""
    method, step = build_method(experiment.method), STEPS // 2
    method.load_state_dict(torch.load(checkpoint, weights_only=True)["model"])
    loader = clip_loader(experiment, method.spec, rank=rank, world_size=2)
    (batch,) = loader.batches(step, step + 1)
    torch.manual_seed(step_seed(experiment.run.seed, drawn_by, step))
    method.before_step(
        Progress(
            step=step,
            steps=STEPS,
            steps_per_epoch=loader.steps_per_epoch,
            samples=loader.samples_per_step,
        )
    )
    with torch.no_grad():
        out = method(batch)
    return {name: float(value) for name, value in {"loss": out.loss, **out.logs}.items()}
