"""The main job in minutes on a CPU: from video files to what a small network learnt of them."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway.analysis import pictures
from midway.analysis.perturbation import perturbation_heatmaps
from midway.analysis.report import Report
from midway.data.colour import normalise
from midway.data.synthetic import CLASS_NAMES, World, write_videos
from midway.data.views import Views, render_views
from midway.errors import MidwayError
from midway.evals.linear_segmentation import SegmentationScore, linear_segmentation
from midway.evals.motion_probe import MotionScore, PairSet, motion_probe, synthetic_pairs
from midway.experiments.base import Experiment, pair_loader, train
from midway.experiments.synthetic import WORLD, midway_tiny
from midway.models.midway import MidwayNetwork
from midway.models.weights import load

NUM_VIDEOS = 160
# Seeds of worlds that no video shows, far from those of the videos.
PROBE_TRAIN = range(1_000_000, 1_000_100)
PROBE_TEST = range(2_000_000, 2_000_050)
GAP_SECONDS = 0.5
SHOWN = 4
"""Examples in each picture of the report."""


@dataclass
class Stages:
    """Tells what is being done, and keeps how long each stage took, in seconds."""

    say: Callable[[str], None]
    seconds: dict[str, float] = field(default_factory=dict)

    @contextmanager
    def __call__(self, name: str, text: str) -> Iterator[None]:
        """Announce a stage and time it."""
        self.say(text)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 1)


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What one network knows."""

    segmentation: SegmentationScore
    predictions: Tensor
    """Predicted classes of the test images (N, H, W)."""
    motion: MotionScore
    heatmaps: Tensor
    """Of the shown pairs (N, rows, columns)."""


def quickstart(
    folder: Path, *, seed: int, steps: int, say: Callable[[str], None]
) -> dict[str, Any]:
    """Make videos, pretrain on the files, compare with the untrained network, write a report.

    Args:
        folder: New or empty; videos, run and ``report.html`` are written there.
        seed: Of the videos, the weights and the order of training.
        steps: Optimiser steps.
        say: Takes one line about each stage.

    Raises:
        MidwayError: The folder is not empty.

    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise MidwayError(f"{folder}: is not empty; give another --folder, or remove it")
    stage = Stages(say)
    with stage("videos", f"making {NUM_VIDEOS} synthetic videos in {folder / 'videos'}"):
        seeds = range(seed * NUM_VIDEOS, (seed + 1) * NUM_VIDEOS)
        write_videos(folder / "videos", WORLD, seeds=seeds)
    experiment = _experiment(folder, seed, steps)
    with stage("train", f"pretraining for {steps} steps, log in {experiment.run.folder}"):
        if train(experiment).interrupted:
            raise MidwayError(f"{folder}: training was interrupted; run it again elsewhere")
    networks = {"untrained": _untrained(experiment), "trained": load(experiment.run.folder)}
    with stage("probes", "probing segmentation and motion, trained and untrained"):
        pairs = synthetic_pairs(WORLD, PROBE_TEST, GAP_SECONDS, 1)
        train_pairs = synthetic_pairs(WORLD, PROBE_TRAIN, GAP_SECONDS, 3)
        findings = {
            name: _findings(network, train_pairs, pairs) for name, network in networks.items()
        }
    report = folder / "report.html"
    with stage("report", f"writing {report}"):
        _report(experiment, findings, pairs, stage.seconds).write(report)
    return _result(folder, experiment, findings) | {"seconds": stage.seconds}


def _experiment(folder: Path, seed: int, steps: int) -> Experiment:
    base = midway_tiny()
    return replace(
        base,
        data=replace(base.data, root=folder / "videos"),
        run=replace(
            base.run,
            folder=folder / "run",
            seed=seed,
            steps=steps,
            precision="bf16-mixed" if _bfloat16_is_fast() else "32-true",
        ),
    )


def _bfloat16_is_fast() -> bool:
    """Whether this CPU multiplies matrices in bfloat16 much faster than in float32."""
    x = torch.randn(512, 512)

    def seconds(matrix: Tensor) -> float:
        times = []
        for _ in range(10):
            start = time.perf_counter()
            matrix @ matrix
            times.append(time.perf_counter() - start)
        return min(times)

    return seconds(x) > 1.5 * seconds(x.bfloat16())


def _untrained(experiment: Experiment) -> MidwayNetwork:
    """The network as training found it."""
    torch.manual_seed(experiment.run.seed)
    return MidwayNetwork(experiment.method.network).eval()  # pyright: ignore[reportAttributeAccessIssue]


def _findings(network: MidwayNetwork, train_pairs: PairSet, pairs: PairSet) -> Findings:
    score, predictions = linear_segmentation(
        network.encoder,
        (train_pairs.source, _classes(PROBE_TRAIN, 3)),
        (pairs.source, _classes(PROBE_TEST, 1)),
        len(CLASS_NAMES),
        levels=(2, 4),
    )
    return Findings(
        segmentation=score,
        predictions=predictions,
        motion=motion_probe(network, train_pairs, pairs),
        heatmaps=_heatmaps(network, pairs),
    )
