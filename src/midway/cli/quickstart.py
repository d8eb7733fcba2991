"""Command ``midway quickstart``: pretrain a small network on synthetic videos, and report."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from midway.analysis.perturbation import fast_dtype
from midway.cli.options import parse, say
from midway.cli.quickstart_plan import Plan, choose_steps, seconds_per_step
from midway.cli.quickstart_probes import CPU, method_of, numbers, probe
from midway.cli.quickstart_report import write_report
from midway.data.synthetic.write import write_videos
from midway.errors import MidwayError, counted, duration
from midway.experiments.base import Experiment, train
from midway.experiments.recognition import NUM_VIDEOS, WORLD, midway_tiny
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.progress import progress

NUM_TRIAL_VIDEOS = 4
"""Number of videos on which the first steps are timed."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Generate videos, pretrain on them, and write a report."""
    return parse(quickstart, words, prog="midway quickstart")


def quickstart(
    folder: Path = Path("quickstart"), seed: int = 0, steps: int | None = None
) -> dict[str, Any]:
    """Generate synthetic videos, pretrain a small network on them, and write a report.

    Args:
        folder: New or empty folder for the videos, the run and report.html.
        seed: Seed of the videos, the initial weights and the order of samples.
        steps: Number of optimiser steps; by default 1,500, or fewer on a slow machine.

    """
    if steps is not None and steps < 1:
        raise MidwayError(f"--steps {steps}: give 1 or more")
    if seed < 0:
        raise MidwayError(f"--seed {seed}: give 0 or more")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MidwayError(f"{folder}: is not empty; give another --folder, or remove it")
    stages = Stages()
    seeds = range(seed * NUM_VIDEOS, (seed + 1) * NUM_VIDEOS)
    with stages("measuring the speed of this machine", "measure"):
        plan = _plan(folder, seed, seeds[:NUM_TRIAL_VIDEOS], steps)
    print(plan)
    with stages(f"generating {counted(NUM_VIDEOS, 'synthetic video')}", "videos"):
        _write_videos(folder / "videos", seeds[NUM_TRIAL_VIDEOS:])
    experiment = _experiment(folder, seed, plan.steps)
    log = f"its log is in {folder / 'run'}"
    with stages(f"pretraining for {counted(plan.steps, 'step')}; {log}", "train"):
        if train(experiment).interrupted:
            raise MidwayError(
                f"{folder}: training was interrupted; start again in another --folder"
            )
    networks = {"untrained": _untrained(experiment), "trained": load(experiment.run.folder)}
    with stages("probing the untrained and the trained network", "probe"):
        findings = probe(networks)
    path = folder / "report.html"
    with stages(f"writing {path}", "report"):
        write_report(path, experiment, findings, stages.seconds, plan.reason)
    say(f"done in {duration(sum(stages.seconds.values()))}; open {path}")
    return {
        "report": str(path),
        "run": str(experiment.run.folder),
        "steps": plan.steps,
        "expected_seconds": round(plan.seconds),
        "seconds": stages.seconds,
    } | numbers(findings)


@dataclass
class Stages:
    """Progress messages and durations of the stages."""

    seconds: dict[str, float] = field(default_factory=dict)
    """Duration of each finished stage in seconds."""

    @contextmanager
    def __call__(self, text: str, name: str) -> Iterator[None]:
        """Announce a stage and time it."""
        say(text)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


def _plan(folder: Path, seed: int, seeds: Sequence[int], steps: int | None) -> Plan:
    """Write the first videos, time a few steps on them, and choose the number of steps."""
    start = time.perf_counter()
    _write_videos(folder / "videos", seeds)
    video_seconds = (time.perf_counter() - start) / len(seeds)
    return choose_steps(
        steps,
        full_steps=midway_tiny().run.steps,
        step_seconds=seconds_per_step(_experiment(folder, seed, 1)),
        video_seconds=video_seconds * NUM_VIDEOS,
    )


def _write_videos(folder: Path, seeds: Sequence[int]) -> None:
    for seed in progress(seeds, "videos"):
        write_videos(folder, WORLD, seeds=[seed])


def _experiment(folder: Path, seed: int, steps: int) -> Experiment:
    base = midway_tiny()
    return replace(
        base,
        data=replace(base.data, root=str(folder / "videos")),
        run=replace(
            base.run,
            folder=folder / "run",
            seed=seed,
            steps=steps,
            precision="bf16-mixed" if fast_dtype(CPU) == torch.bfloat16 else "32-true",
        ),
    )


def _untrained(experiment: Experiment) -> MidwayNetwork:
    """Build the network with the initial weights of the run."""
    torch.manual_seed(experiment.run.seed)
    return MidwayNetwork(method_of(experiment).network).eval()
