"""Plan of a pretraining run before it starts: data, length, disk, memory, time and bottleneck."""

import math
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch

from midway.bench.chips import CHIPS, UTILISATION, Chip
from midway.bench.costs import costs_of
from midway.bench.trial import Trial, try_out
from midway.data.clips.find import ClipList
from midway.data.sampling.loader import ClipLoader
from midway.data.sampling.samples import ClipDataset
from midway.data.views.spec import ClipSpec
from midway.experiments.base import Experiment
from midway.methods.base import build_method, flops_per_sample

MIXED = 0.6
"""Memory of activations in mixed precision, relative to that counted in float32: residuals and
norms stay in float32. Fitted to Midway's ViT-S in bfloat16 on a CPU: 0.59 GB a sample."""
USABLE = 0.9
"""Fraction of a GPU's memory that a run may plan with; contexts and fragments take the rest."""
RECORD_BYTES = 2_000
"""Bytes of one record of the log, in metrics.jsonl and for TensorBoard together."""
Limit = Literal["data", "compute"]


@dataclass(frozen=True, kw_only=True)
class Length:
    """Data of a run, and its length."""

    clips: int
    skipped_clips: int
    first_skipped: str
    """Reason of the first skipped clip; empty if there is none."""
    hours: float
    """Duration of the usable clips."""
    frames_per_sample: int
    samples_per_epoch: int
    samples_per_step: int
    steps: int
    samples: int
    """Samples of the whole run."""
    epochs: float
    samples_per_second_of_video: float
    """Samples of the whole run for each second of video."""


@dataclass(frozen=True, kw_only=True)
class Needs:
    """Disk and memory of a run. Memory is counted from shapes, not measured."""

    checkpoint_bytes: int
    disk_bytes: int
    """All files of the run folder: the checkpoints kept, one being written, and the log."""
    free_disk_bytes: int
    """Free space where the run folder is or will be."""
    samples_per_device: int
    state_bytes: int
    """Weights, gradients, moments of the optimiser and EMA teacher on each device."""
    activation_bytes: int
    """Memory per sample that the backward pass needs, views included."""

    @property
    def memory_bytes(self) -> int:
        """Memory that each device needs."""
        return self.state_bytes + self.samples_per_device * self.activation_bytes


@dataclass(frozen=True, kw_only=True)
class OnChip:
    """Estimate of a run on one or several GPUs of one kind."""

    name: str
    devices: int
    precision: str
    hours: tuple[float, float]
    """Duration at the optimistic and at the cautious utilisation, if data keep up."""
    samples_per_second: tuple[float, float]
    """Training throughput at the cautious and at the optimistic utilisation."""
    cores: tuple[int, int]
    """Number of this machine's cores that would read fast enough, for each throughput."""
    accumulate: int | None
    """Smallest `run.accumulate` with which a step of the same size fits into the memory; None if
    not even two samples fit."""


@dataclass(frozen=True, kw_only=True)
class Here:
    """Estimate of a run on this machine, from a few measured steps and reads."""

    trial: Trial
    samples_per_second: float
    seconds: float
    """Duration of the whole run."""
    limit: Limit
    cores_to_read: int
    """Cores with which reading would not limit this device."""


@dataclass(frozen=True, kw_only=True)
class RunPlan:
    """Plan of a pretraining run."""

    length: Length
    needs: Needs
    giga_flops_per_sample: float
    here: Here
    chips: tuple[OnChip, ...]
    """Estimates for known GPUs; empty if the run is for a CPU."""
    utilisation: tuple[float, float] = UTILISATION
    """Assumed utilisation of the GPUs: cautious and optimistic."""


def plan_run(
    experiment: Experiment,
    found: ClipList,
    spec: ClipSpec,
    *,
    announce: Callable[[str], None] = lambda text: None,
) -> RunPlan:
    """Plan a run: count its data and costs, and time a few steps on this machine.

    Nothing is written.

    Args:
        experiment: The experiment.
        found: Clips of its data.
        spec: Samples of its method.
        announce: Called with a description of the next measurement.

    Raises:
        MidwayError: The clips cannot be read, or the method refuses them.

    """
    length = _length(experiment, found, spec)
    trial = try_out(experiment, found, announce=announce)
    announce("counting operations and memory")
    flops = flops_per_sample(experiment.method)
    needs = _needs(experiment, spec, length)
    return RunPlan(
        length=length,
        needs=needs,
        giga_flops_per_sample=flops / 1e9,
        here=here(experiment, trial, length.samples),
        chips=tuple(
            estimate
            for chip in ([] if experiment.run.accelerator == "cpu" else CHIPS)
            if (estimate := on_chip(chip, experiment, length, needs, flops, trial.read_seconds))
        ),
    )


def _length(experiment: Experiment, found: ClipList, spec: ClipSpec) -> Length:
    data, run = experiment.data, experiment.run
    loader = ClipLoader(ClipDataset(found, data, spec, seed=run.seed))
    steps = run.length(loader.steps_per_epoch / run.accumulate)
    per_step = loader.samples_per_step * run.accumulate
    return Length(
        clips=len(found.clips),
        skipped_clips=len(found.skipped),
        first_skipped=found.skipped[0].reason if found.skipped else "",
        hours=found.seconds / 3600,
        frames_per_sample=spec.num_frames,
        samples_per_epoch=len(loader.dataset),
        samples_per_step=per_step,
        steps=steps,
        samples=steps * per_step,
        epochs=steps * per_step / len(loader.dataset),
        samples_per_second_of_video=steps * per_step / max(found.seconds, 1e-9),
    )


def _needs(experiment: Experiment, spec: ClipSpec, length: Length) -> Needs:
    run = experiment.run
    costs = costs_of(experiment.method)
    trainable = costs.encoder_parameters + costs.other_parameters
    with torch.device("meta"):
        tensors = build_method(experiment.method).state_dict().values()
    state = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    checkpoint = state + 8 * trainable  # two moments in float32
    views = sum(
        4 * 3 * spec.num_crops(name) * math.prod(view.size) for name, view in spec.views.items()
    )
    factor = 1.0 if run.precision == "32-true" else MIXED
    return Needs(
        checkpoint_bytes=checkpoint,
        disk_bytes=(run.keep_checkpoints + 1) * checkpoint
        + length.steps // run.log_every * RECORD_BYTES,
        free_disk_bytes=_free(run.folder),
        samples_per_device=math.ceil(experiment.data.batch_size / (run.devices * run.num_nodes)),
        state_bytes=checkpoint + 4 * trainable,  # and gradients
        activation_bytes=round(costs.activation_bytes * factor) + views,
    )


def _free(folder: Path) -> int:
    place = folder.absolute()
    return shutil.disk_usage(next(each for each in (place, *place.parents) if each.exists())).free


def here(experiment: Experiment, trial: Trial, samples: int) -> Here:
    """Estimate a run on this machine.

    On a CPU, reading and training share the cores, so that their times add up; beside a GPU they
    overlap, so that the longer one counts.
    """
    run, workers = experiment.run, max(1, experiment.data.num_workers) * experiment.run.devices
    compute = trial.compute_seconds
    if trial.device == "cpu":
        read = trial.read_seconds / trial.cores
        seconds = max(compute + read, trial.read_seconds / workers)
    else:
        compute /= run.devices
        read = trial.read_seconds / min(workers, trial.cores)
        seconds = max(compute, read)
    return Here(
        trial=trial,
        samples_per_second=1 / seconds,
        seconds=samples * seconds,
        limit="data" if read > compute else "compute",
        cores_to_read=math.ceil(trial.read_seconds / compute),
    )


def on_chip(
    chip: Chip,
    experiment: Experiment,
    length: Length,
    needs: Needs,
    flops: float,
    read_seconds: float,
) -> OnChip | None:
    """Estimate a run on GPUs of one kind; None if their peak is unknown."""
    run = experiment.run
    found = chip.peak(run.precision)
    if found is None:
        return None
    peak, precision = found
    devices = run.devices * run.num_nodes
    slow, fast = (devices * peak * share / flops for share in UTILISATION)
    room = USABLE * chip.memory_gigabytes * 1e9 - needs.state_bytes
    fitting = int(room // needs.activation_bytes)
    return OnChip(
        name=chip.name,
        devices=devices,
        precision=precision,
        hours=(length.samples / fast / 3600, length.samples / slow / 3600),
        samples_per_second=(slow, fast),
        cores=(math.ceil(slow * read_seconds), math.ceil(fast * read_seconds)),
        accumulate=_accumulate(length.samples_per_step, devices, experiment, fitting),
    )


def _accumulate(samples: int, devices: int, experiment: Experiment, fitting: int) -> int | None:
    """Return the fewest micro-batches of which a device holds `fitting` samples at most."""
    unit = devices * experiment.data.draws_per_clip
    fewest = math.ceil(samples / devices / fitting) if fitting >= 2 else samples + 1
    counts = range(fewest, samples // unit + 1)
    return next((count for count in counts if samples % (count * unit) == 0), None)
