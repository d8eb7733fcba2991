"""midway quickstart: from video files to what a small network learnt of them, on a CPU."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from midway.analysis.perturbation import fast_dtype
from midway.cli.options import parse, say
from midway.cli.quickstart_report import (
    CPU,
    GAP_SECONDS,
    NUM_VIDEOS,
    PROBE_TEST,
    PROBE_TRAIN,
    method_of,
    numbers,
    probe,
    write_report,
)
from midway.data.synthetic.write import write_videos
from midway.errors import MidwayError
from midway.evals.probes.motion import synthetic_pairs
from midway.experiments.base import Experiment, train
from midway.experiments.synthetic import WORLD, midway_tiny
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load


def main(words: Sequence[str]) -> dict[str, Any]:
    """Make videos, pretrain on them, and report what was learnt."""
    return parse(quickstart, words, prog="midway quickstart")


def quickstart(
    folder: Path = Path("quickstart"), seed: int = 0, steps: int = midway_tiny().run.steps
) -> dict[str, Any]:
    """Make synthetic videos, pretrain a small Midway on the files, and report what it learnt.

    Args:
        folder: New or empty; videos, run and report.html are written there.
        seed: Of the videos, the weights and the order of training.
        steps: Optimiser steps.

    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MidwayError(f"{folder}: is not empty; give another --folder, or remove it")
    stages = Stages()
    with stages(f"making {NUM_VIDEOS} synthetic videos", "videos"):
        seeds = range(seed * NUM_VIDEOS, (seed + 1) * NUM_VIDEOS)
        write_videos(folder / "videos", WORLD, seeds=seeds)
    experiment = _experiment(folder, seed, steps)
    with stages(f"pretraining for {steps} steps; its log is in {folder / 'run'}", "train"):
        if train(experiment).interrupted:
            raise MidwayError(f"{folder}: training was interrupted; start anew in another --folder")
    networks = {"untrained": _untrained(experiment), "trained": load(experiment.run.folder)}
    with stages("probing both networks, untrained and trained", "probe"):
        train_pairs = synthetic_pairs(WORLD, PROBE_TRAIN, GAP_SECONDS, 2)
        pairs = synthetic_pairs(WORLD, PROBE_TEST, GAP_SECONDS, 1)
        findings = {name: probe(net, train_pairs, pairs) for name, net in networks.items()}
    path = folder / "report.html"
    with stages(f"writing {path}", "report"):
        write_report(path, experiment, findings, pairs, stages.seconds)
    say(f"done in {sum(stages.seconds.values()) / 60:.1f} minutes; open {path}")
    return {"report": str(path), "run": str(experiment.run.folder), "seconds": stages.seconds} | {
        name: numbers(finding) for name, finding in findings.items()
    }


@dataclass
class Stages:
    """Says what is being done, and keeps how long each stage took, in seconds."""

    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, text: str, name: str) -> Iterator[None]:
        """Announce a stage and time it."""
        say(text)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


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
    """The network as training found it."""
    torch.manual_seed(experiment.run.seed)
    return MidwayNetwork(method_of(experiment).network).eval()
