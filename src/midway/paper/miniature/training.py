"""Training of a cell, which stops at a deadline and continues in the next call."""

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from midway.evals.results import seconds_trained
from midway.experiments.base import Experiment, clip_loader, sample_spec
from midway.methods.base import build_method
from midway.methods.midway import Midway
from midway.models.encoders.base import Encoder
from midway.models.midway import MidwayNetwork
from midway.models.pair_encoders.base import PairEncoder
from midway.models.vit_config import EncoderConfig
from midway.paper.miniature.arms import Arm
from midway.paper.miniature.folders import clips_config, training_folder
from midway.paper.miniature.protocol import Dataset, Protocol, Trial
from midway.paper.miniature.readouts import labelled_training_frames, readouts
from midway.paper.miniature.supervised import LabelledCrops, Supervised
from midway.train.launch import StoppedWaitingError
from midway.train.objective import Batch, Loader, Objective
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from midway.train.training import Trained, TrainingConfig


Builder = Callable[[], tuple[Objective, Loader]]
"""Builder of the parts of a run."""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Training of an arm on a dataset with one seed and one trial."""

    protocol: Protocol
    arm: Arm
    dataset: Dataset
    seed: int
    trial: Trial
    folder: Path
    """Folder of the run."""
    data: Path
    """Folder of all training data that the benchmark writes."""
    camvid: Path | None = None
    """Folder of CamVid."""


@dataclass(frozen=True, kw_only=True)
class SupervisedConfig:
    """Configuration of the supervised arm's run."""

    encoder: EncoderConfig
    optim: OptimConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """Result of a training that has ended or met its deadline."""

    encoder: Encoder
    network: MidwayNetwork | None = None
    """Network with dynamics, of the arms that have one."""
    pair_encoder: PairEncoder | None = None
    """CroCo's decoder."""
    is_finished: bool = True
    losses: tuple[float, float] | None = None
    """First and last logged loss; None for an arm without training."""
    seconds: float = 0.0
    """Time in the training loop, over all calls."""


class DeadlineLoader:
    """Loader that stops a run at a deadline, between two steps.

    Args:
        loader: Loader of the run.
        deadline: Value of `time.monotonic` from which no step begins.

    """

    def __init__(self, loader: Loader, deadline: float) -> None:
        self.loader, self.deadline = loader, deadline
        self.steps_per_epoch = loader.steps_per_epoch
        self.samples_per_step = loader.samples_per_step
        self.epochs_per_step = loader.epochs_per_step

    def batches(self, start_step: int, stop_step: int) -> Iterator[Batch]:
        """Yield the batches until the deadline.

        Raises:
            StoppedWaitingError: The deadline has passed; the loop then saves a checkpoint.

        """
        batches = self.loader.batches(start_step, stop_step)
        for step, batch in enumerate(batches, start_step):
            # At least one step per call, so that a run finishes under any budget.
            if step > start_step and time.monotonic() >= self.deadline:
                raise StoppedWaitingError(step)
            yield batch


def train(job: Job, deadline: float) -> Outcome:
    """Train or continue a cell until its last step or the deadline.

    Args:
        job: The cell.
        deadline: Value of `time.monotonic` from which no step begins.

    Raises:
        MidwayError: The data are unusable, or the training diverged.

    """
    config, build = _supervised(job) if job.arm.kind == "labels" else _method(job)
    objective, is_finished = fit_until(config, build, deadline)
    return Outcome(
        encoder=objective.encoders["student"],
        network=objective.network if isinstance(objective, Midway) else None,
        pair_encoder=objective.pair_encoder,
        is_finished=is_finished,
        losses=losses_of(config.run.folder),
        seconds=seconds_trained(config.run.folder),
    )


def fit_until(config: "TrainingConfig", build: Builder, deadline: float) -> tuple[Objective, bool]:
    """Train or continue a run until its last step or the deadline.

    Returns:
        The objective, and True if the run has reached its last step.

    """
    from midway.train.training import Trained, launch_and_fit  # importing Fabric takes seconds

    built: list[Objective] = []

    def parts(fabric: "Fabric") -> "Trained":
        torch.set_num_threads(1)  # the launch has raised it again
        objective, loader = build()
        built.append(objective)
        return Trained(objective=objective, loader=DeadlineLoader(loader, deadline))

    resume = (config.run.folder / "config.json").exists()
    summary, _ = launch_and_fit(config, parts, resume=resume)
    return built[0], not summary.interrupted


def losses_of(folder: Path) -> tuple[float, float]:
    """Return the first and the last logged loss of a run."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    return losses[0], losses[-1]


def _method(job: Job) -> tuple[Experiment, Builder]:
    """Return the configuration of a method's run, and the builder of its parts."""
    protocol, arm = job.protocol, job.arm
    assert arm.build is not None
    method = arm.build(protocol, job.trial)
    frames = sample_spec(method).num_frames
    where = training_folder(protocol, job.dataset, arm, job.seed, data=job.data, camvid=job.camvid)
    data = clips_config(protocol, job.dataset, arm, where, frames)
    experiment = Experiment(method=method, data=data, optim=_optim(job), run=_run(job))

    def build() -> tuple[Objective, Loader]:
        objective = build_method(method)
        return objective, clip_loader(experiment, objective.spec)

    return experiment, build


def _supervised(job: Job) -> tuple[SupervisedConfig, Builder]:
    """Return the configuration of the run with labels, and the builder of its parts."""
    protocol = job.protocol
    frames = labelled_training_frames(protocol, job.dataset, job.seed, job.camvid)
    count = readouts(protocol, job.dataset, "report", job.camvid).num_classes

    def build() -> tuple[Objective, Loader]:
        loader = LabelledCrops(
            frames,
            size=protocol.encoder.image_size,
            batch_size=protocol.frames_per_step,
            seed=job.seed,
        )
        return Supervised(protocol.encoder, count), loader

    config = SupervisedConfig(encoder=protocol.encoder, optim=_optim(job), run=_run(job))
    return config, build


def optim_config(protocol: Protocol, lr: float) -> OptimConfig:
    """Return the optimiser of all trainings."""
    return OptimConfig(
        lr=lr,
        scale_lr=False,
        warmup_steps=protocol.warmup_steps,
        betas=(0.9, 0.95),
        weight_decay=protocol.weight_decay,
        final_weight_decay=protocol.weight_decay,
        clip_norm=protocol.clip_norm,
    )


def run_config(protocol: Protocol, folder: Path, *, seed: int, steps: int) -> RunConfig:
    """Return the options of a training's run."""
    return RunConfig(
        folder=folder,
        seed=seed,
        steps=steps,
        precision=protocol.precision,
        accelerator="cpu",
        log_every=max(1, steps // 10),
        health_every=0,
        checkpoint_every=max(1, steps // 3),
        keep_checkpoints=1,
    )


def _optim(job: Job) -> OptimConfig:
    return optim_config(job.protocol, job.trial.lr)


def _run(job: Job) -> RunConfig:
    return run_config(job.protocol, job.folder, seed=job.seed, steps=job.protocol.steps)
