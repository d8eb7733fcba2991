"""Length of the quickstart on this machine, from a few timed steps."""

from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

from midway.allocator import keep_freed_memory
from midway.bench.step import FastStep
from midway.errors import counted, duration
from midway.experiments.base import Experiment, clip_loader
from midway.methods.base import build_method
from midway.methods.midway import Midway
from midway.progress import progress
from midway.train.run import AUTOCAST_TYPES

TARGET_SECONDS = 310.0
"""Duration of the whole quickstart for which the number of steps is chosen."""
PROBE_STEPS = 150
"""Duration of probes and report, in training steps (estimated from their parts)."""
MIN_STEPS = 100
"""Smallest number of steps; fewer would show nothing."""
WARM_UP_STEPS, TIMED_STEPS = 3, 8


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Number of steps, and the expected duration of the whole quickstart."""

    steps: int
    seconds: float
    """Expected duration of all stages."""
    reason: str
    """Reason for fewer steps than in the full run; empty if there are as many."""

    def __str__(self) -> str:
        """Return the expected duration and the reason, for the terminal."""
        return f"expected on this machine: {duration(self.seconds)}. {self.reason}".rstrip()


def choose_steps(
    steps: int | None, *, full_steps: int, step_seconds: float, video_seconds: float
) -> Plan:
    """Choose the number of steps that fits into `TARGET_SECONDS`.

    Args:
        steps: Requested number; None to choose one.
        full_steps: Number of steps of the full run, which is never exceeded unless requested.
        step_seconds: Duration of a step on this machine.
        video_seconds: Time to generate all videos.

    """
    others = video_seconds + PROBE_STEPS * step_seconds
    fitting = int((TARGET_SECONDS - others) / step_seconds)
    chosen = steps or max(min(MIN_STEPS, full_steps), min(full_steps, fitting))
    reason = ""
    if steps is None and chosen < full_steps:
        full = duration(others + full_steps * step_seconds)
        reason = (
            f"A step takes {step_seconds:.2f} s on this machine, so that the run has "
            f"{counted(chosen, 'step')} instead of {full_steps:,}, which would take {full} "
            f"(--steps {full_steps})."
        )
    return Plan(steps=chosen, seconds=others + chosen * step_seconds, reason=reason)


def seconds_per_step(experiment: Experiment) -> float:
    """Time a few training steps of an experiment on its data; no file is left behind."""
    keep_freed_memory()
    method = build_method(experiment.method)
    assert isinstance(method, Midway)
    ours = FastStep(method, AUTOCAST_TYPES.get(experiment.run.precision))
    seconds = []
    with TemporaryDirectory() as folder:  # the loader may write a list of skipped clips
        trial = replace(experiment, run=replace(experiment.run, folder=Path(folder)))
        count = WARM_UP_STEPS + TIMED_STEPS
        batches = clip_loader(trial, method.spec).batches(0, count)
        start = perf_counter()
        for batch in progress(batches, "steps", count):
            ours.step(batch.render(method.spec))
            seconds.append(perf_counter() - start)
            start = perf_counter()
    return sum(seconds[WARM_UP_STEPS:]) / TIMED_STEPS
