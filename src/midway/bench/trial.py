"""A few training steps and reads of an experiment on this machine, for the plan of a run."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from statistics import median

import numpy as np
import torch

from midway.allocator import keep_freed_memory
from midway.bench.step import FastStep
from midway.bench.stopwatch import seconds_of
from midway.cores import usable_cores
from midway.data.clip import BadClipError
from midway.data.clips.find import ClipList
from midway.data.prepare.measure import Sampling, samples_per_second
from midway.data.sampling.loader import ClipBatch, ClipLoader
from midway.data.sampling.samples import ClipDataset
from midway.errors import MidwayError
from midway.experiments.base import Experiment
from midway.methods.base import Method, build_method
from midway.nn.compilation import recompute_regions
from midway.nn.device import limit_threads, pick_device
from midway.train.run import AUTOCAST_TYPES

SMALLEST = 2
"""Samples of the first trial step; one is too few for the batch norm of a vector."""
LONG_SECONDS = 2.0
"""Duration of a step from which no larger batch is tried, and a single step is timed."""
TIMED_STEPS = 3
NUM_CLIPS = 8
"""Number of clips from which samples are read."""


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Speed of an experiment on this machine, measured."""

    device: str
    """Name of the GPU, or cpu."""
    cores: int
    """Cores that this process may use."""
    samples: int
    """Samples of the timed step; fewer than in training if that would take long."""
    compute_seconds: float
    """Seconds per sample of views, loss, gradients and update."""
    memory_bytes: int | None
    """Peak memory of the step on a GPU; None on a CPU."""
    ran_out_of_memory: bool
    """True if the GPU's memory was too small for a larger batch."""
    read_seconds: float
    """CPU seconds per sample to open, read and decode, without waits for a disk or network."""


def try_out(experiment: Experiment, found: ClipList, *, announce: Callable[[str], None]) -> Trial:
    """Read samples of an experiment's clips, and time steps on them with fresh weights.

    Raises:
        MidwayError: The clips cannot be read, or the method refuses them.

    """
    cpu = experiment.run.accelerator == "cpu"
    device = pick_device("cpu" if cpu else "auto")
    if device.type == "cpu":
        keep_freed_memory()
        limit_threads(usable_cores())
    method = build_method(experiment.method).to(device)
    announce("reading clips")
    read_seconds = _read_seconds(experiment, found, method.spec.num_frames)
    announce("timing steps")
    if experiment.run.recompute:
        recompute_regions(method)
    samples, seconds, full = _timed(experiment, found, method, device)
    is_cuda = device.type == "cuda"
    return Trial(
        device=torch.cuda.get_device_name(device) if is_cuda else device.type,
        cores=usable_cores(),
        samples=samples,
        compute_seconds=seconds / samples,
        memory_bytes=torch.cuda.max_memory_allocated(device) if is_cuda else None,
        ran_out_of_memory=full,
        read_seconds=read_seconds,
    )


def _timed(
    experiment: Experiment, found: ClipList, method: Method, device: torch.device
) -> tuple[int, float, bool]:
    """Return the samples and seconds of the largest step, and whether memory ran out."""
    run = experiment.run
    most = max(SMALLEST, experiment.data.batch_size // (run.devices * run.num_nodes))
    ours = FastStep(method, AUTOCAST_TYPES.get(run.precision))
    samples, seconds, timed = min(SMALLEST, most), 0.0, 0
    while True:
        batch = _batch(experiment, found, method, samples).to(device)

        def step(batch: ClipBatch = batch) -> None:
            ours.step(batch.render(method.spec))

        try:
            # The first step allocates memory and selects kernels.
            first = seconds_of(step, device)
            count = 1 if first > LONG_SECONDS else TIMED_STEPS
            seconds = median(seconds_of(step, device) for _ in range(count))
        except torch.OutOfMemoryError:
            if not timed:
                raise MidwayError(
                    f"too little memory on this GPU for a step of {samples} samples; give "
                    "--run.recompute, a smaller network, or --run.accelerator cpu"
                ) from None
            return timed, seconds, True
        timed = samples
        if samples == most or seconds * min(2.0, most / samples) > LONG_SECONDS:
            return samples, seconds, False
        samples = min(2 * samples, most)


def _batch(experiment: Experiment, found: ClipList, method: Method, samples: int) -> ClipBatch:
    data = replace(
        experiment.data, batch_size=samples, draws_per_clip=1, starts="random", num_workers=0
    )
    dataset = ClipDataset(found, data, method.spec, seed=experiment.run.seed)
    return next(iter(ClipLoader(dataset).batches(0, 1)))


def _read_seconds(experiment: Experiment, found: ClipList, num_frames: int) -> float:
    """Measure the seconds of one core per sample.

    Raises:
        MidwayError: None of the drawn clips can be read.

    """
    data = experiment.data
    sampling = Sampling(
        draws_per_clip=data.draws_per_clip,
        num_frames=num_frames,
        gap_seconds=data.gap_seconds,
        # A random frame costs as much, whether each is a start once or some are drawn.
        starts="keyframes" if data.starts == "keyframes" else "random",
        targets=data.targets,
        seed=experiment.run.seed,
    )
    order = np.random.default_rng(sampling.seed).permutation(len(found.clips))
    drawn = [found.clips[place] for place in order[:NUM_CLIPS].tolist()]
    readable, failure = [], None
    for clip in drawn:
        try:
            with clip.open() as reader:
                # The last frame too, because most damaged files are truncated.
                reader.frames_at([0.0, float(clip.frame_seconds[-1])])
            readable.append(clip)
        except BadClipError as error:
            failure = error
    if not readable:
        raise MidwayError(f"none of {len(drawn)} drawn clips can be read; the last: {failure}")
    # By CPU time, so that other work on the machine does not count.
    return 1 / samples_per_second(readable, sampling, clock=time.process_time)
