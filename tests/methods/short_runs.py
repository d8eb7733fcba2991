"""Short runs of every method on generated videos; as a program, on the ranks of torchrun."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import torch

from midway.data.sampling.samples import ClipsConfig
from midway.experiments.base import Experiment, train
from midway.registry import available, find
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

METHODS = available("midway.methods")
STEPS = 4


def short_run(method: str, videos: Path, folder: Path) -> Experiment:
    """Four steps of the tiny configuration, with a checkpoint after two."""
    return Experiment(
        method=find("midway.methods", method).METHOD.Config.tiny(),
        data=ClipsConfig(
            root=str(videos), gap_seconds=(0.05, 0.1), starts="random", batch_size=4, num_workers=0
        ),
        optim=OptimConfig(lr=1e-3, scale_lr=False, warmup_epochs=0),
        run=RunConfig(
            folder=folder,
            steps=STEPS,
            precision="32-true",
            accelerator="cpu",
            log_every=1,
            health_every=3,
            checkpoint_every=STEPS // 2,
        ),
    )


def resume_half_way(experiment: Experiment, parts: Path, *, is_first_rank: bool = True) -> None:
    """Repeat the second half of a run in a copy of its folder."""
    if is_first_rank:
        shutil.copytree(experiment.run.folder, parts)
        (parts / "checkpoints" / f"step_{STEPS:08d}.ckpt").unlink()
    if torch.distributed.is_initialized():
        torch.distributed.barrier()
    train(replace(experiment, run=replace(experiment.run, folder=parts)), resume=True)


if __name__ == "__main__":
    videos, runs = map(Path, sys.argv[1:])
    for method in METHODS:
        experiment = short_run(method, videos, runs / method / "whole")
        train(experiment)
        is_first_rank = torch.distributed.get_rank() == 0
        resume_half_way(experiment, runs / method / "parts", is_first_rank=is_first_rank)
