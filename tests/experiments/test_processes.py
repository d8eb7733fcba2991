"""A run as processes of its own: killed, stopped, resumed, and shared by two ranks."""

import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch

from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_segmentation_dataset, write_videos

STEPS = 6


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, WorldConfig(height=64, width=64, num_frames=40), seeds=range(3))
    return folder


def _midway(*, ranks: int = 1) -> list[str]:
    several = ["torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}", "-m"]
    return [sys.executable, "-m", *(several if ranks > 1 else []), "midway.cli"]


def _command(videos: Path, run: Path, *words: str, ranks: int = 1) -> list[str]:
    return [
        *_midway(ranks=ranks),
        *("train", "camvid.midway_tiny", "--data.root", str(videos), "--run.folder", str(run)),
        *("--data.batch-size", "4", "--data.num-workers", "0"),
        *("--run.steps", str(STEPS), "--run.log-every", "1", "--run.checkpoint-every", "1"),
        *("--run.keep-checkpoints", str(STEPS)),
        *words,
    ]


def _environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1"}


def _run(command: list[str]) -> None:
    done = subprocess.run(command, env=_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def _losses(run: Path) -> list[float]:
    lines = (run / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


def _weights(run: Path) -> dict[str, torch.Tensor]:
    newest = max((run / "checkpoints").glob("*.ckpt"))
    return torch.load(newest, weights_only=True)["model"]


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing interrupted."""
    run = tmp_path_factory.mktemp("whole") / "run"
    _run(_command(videos, run))
    return run


def test_killed_at_a_random_step_and_resumed_it_equals_an_uninterrupted_run(
    videos: Path, whole: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    after = random.randrange(1, STEPS - 1)
    process = subprocess.Popen(_command(videos, run), env=_environment(), stderr=subprocess.PIPE)
    while len(list(run.glob("checkpoints/*.ckpt"))) < 1 or _steps(run) < after:
        assert process.poll() is None, process.stderr
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    _run([*_midway(), "train", "--resume", str(run)])
    assert _losses(run) == _losses(whole)
    one, two = _weights(run), _weights(whole)
    assert all(torch.equal(one[name], two[name]) for name in two)


def _steps(run: Path) -> int:
    path = run / "metrics.jsonl"
    return path.read_text().count("\n") if path.exists() else 0


def test_two_ranks_give_the_losses_and_weights_of_one_process_with_the_whole_batch(
    videos: Path, whole: Path, tmp_path: Path
) -> None:
    run, labels = tmp_path / "run", tmp_path / "labels"
    # Scored by the first alone, for which the other must neither wait for ever nor learn otherwise.
    world = WorldConfig(height=48, width=64, num_frames=2, fps=1.0)
    write_segmentation_dataset(labels, world, train_seeds=[10, 11], val_seeds=[12])
    words = ("--labels.dataset", "synthetic", "--labels.root", str(labels))
    _run(_command(videos, run, *words, "--run.health-every", "2", ranks=2))
    lines = (run / "metrics.jsonl").read_text().splitlines()
    scored = [record["step"] for record in map(json.loads, lines) if "health/knn_miou" in record]
    assert scored == [1, 2, 4, 6]
    assert _losses(run) == pytest.approx(_losses(whole), rel=1e-5)
    one, two = _weights(run), _weights(whole)
    for name in two:
        torch.testing.assert_close(one[name], two[name], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_resumed_amid_an_epoch_any_number_of_processes_go_on_with_the_samples_that_are_left(
    whole: Path, tmp_path: Path, ranks: int
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    for newer in sorted((run / "checkpoints").glob("*.ckpt"))[2:]:
        newer.unlink()
    _run([*_midway(ranks=ranks), "train", "--resume", str(run)])
    # Another sample would show: the losses of single steps differ by far more than this.
    assert _losses(run) == pytest.approx(_losses(whole), rel=1e-5)
    assert np.std(_losses(whole)) > 1e-3


IMPATIENT = """
import sys
from datetime import timedelta
from midway.cli import main
from midway.train import launch

if __name__ == "__main__":
    launch.GROUP_TIMEOUT = timedelta(seconds=20)
    sys.exit(main(sys.argv[1:]))
"""
"""The command line, with a shorter time that ranks wait for another."""


@pytest.mark.timeout(300)
def test_a_rank_whose_partner_is_stopped_ends_with_one_line_and_so_does_the_partner(
    videos: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    # As torchrun starts them, which would kill the other rank as soon as one has ended.
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "TORCHELASTIC_RUN_ID": "test"}
    common |= {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "GROUP_RANK": "0"}
    words = _command(videos, run, "--run.steps", "10000")[len(_midway()) :]
    ranks = [
        subprocess.Popen(
            [sys.executable, "-c", IMPATIENT, *words],
            env=_environment() | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        while _steps(run) < 2:
            assert all(rank.poll() is None for rank in ranks)
            time.sleep(0.1)
        ranks[1].send_signal(signal.SIGSTOP)
        _, first = ranks[0].communicate()
        ranks[1].send_signal(signal.SIGCONT)
        _, second = ranks[1].communicate()
    finally:
        for rank in ranks:
            rank.kill()
    assert [rank.returncode for rank in ranks] == [2, 2]
    for errors in (first, second):
        assert "Traceback" not in errors
        assert re.fullmatch(
            rf"midway: {run}: another process .* does not answer .*; .* --resume {run}",
            errors.splitlines()[-1],
        )
