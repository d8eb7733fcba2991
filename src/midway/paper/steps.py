"""Commands of a row, what they cost, and the numbers that they have produced."""

import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from midway.bench.chips import CHIPS, UTILISATION
from midway.config import read_json
from midway.errors import MidwayError
from midway.experiments.base import Experiment, experiments
from midway.methods.base import flops_per_sample
from midway.paper.evaluations import BDD_VIDEOS, VENICE, Dataset, Evaluation
from midway.paper.rows import Row

CLIPS = {BDD_VIDEOS.title: 70_000, VENICE.title: 194_000}
"""Samples of an epoch: training videos of BDD100K, frames of 1.8 hours at 30 Hz of Venice."""
GPU = "A100"
"""GPU of the estimates; the paper's ViT-S was trained on two."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """Folders of a reproduction."""

    data: Path
    """All data, by the folders of `Dataset`."""
    runs: Path
    """Runs and evaluations; rows of several tables share a run."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """Command of a row, without the leading ``midway``."""

    words: tuple[str, ...]
    folder: Path
    """Folder that it writes."""
    resumed: tuple[str, ...]
    """Command that continues it."""
    result: Path | None = None
    """File that it writes at its end; None for a pretraining run, which ends at once if continued
    after its end."""

    @property
    def is_done(self) -> bool:
        """True if its results are there."""
        return self.result is not None and self.result.is_file()

    def run(self) -> int:
        """Run or continue the command in a process of its own, and return its exit code."""
        words = self.resumed if (self.folder / "config.json").is_file() else self.words
        process = subprocess.Popen([sys.executable, "-m", "midway.cli", *words])
        while True:
            try:
                return process.wait()
            except KeyboardInterrupt:
                # SIGTERM did not reach the command; it writes a checkpoint, then ends.
                process.terminate()


@dataclass(frozen=True, kw_only=True)
class Cost:
    """Cost of a row's pretraining, estimated."""

    samples: int
    giga_flops_per_sample: float
    gpu_hours: tuple[float, float]
    """Hours of one `GPU` at the optimistic and at the cautious utilisation."""


@dataclass(frozen=True, kw_only=True)
class Number:
    """The paper's number beside ours."""

    metric: str
    paper: float | None
    ours: float | None


def video_of(row: Row) -> Dataset:
    """Return the video that a row's network is pretrained on."""
    return VENICE if row.preset.startswith("walking_tours") else BDD_VIDEOS


def data_of(row: Row) -> list[Dataset]:
    """Return all data of a row, the video first."""
    return [video_of(row), *dict.fromkeys(d for each in row.evaluations for d in each.data)]


def steps_of(row: Row, folders: Folders) -> list[Step]:
    """Return the commands of a row in their order: pretraining, then its evaluations."""
    run = folders.runs / row.preset
    words = ["train", row.preset, "--data.root", str(folders.data / video_of(row).folder)]
    if "poodle" in row.preset:
        words += ["--method.flow.weights", str(folders.data / "raft-things.pth")]
    words += ["--run.folder", str(run)]
    training = Step(words=tuple(words), folder=run, resumed=("train", "--resume", str(run)))
    return [training, *(_evaluation(each, run, folders) for each in row.evaluations)]


def _evaluation(evaluation: Evaluation, run: Path, folders: Folders) -> Step:
    folder = folder_of(evaluation, run)
    root = folders.data / evaluation.root
    places = ("--network", str(run), "--data.root", str(root), "--run.folder", str(folder))
    return Step(
        words=("eval", *evaluation.command, *places),
        folder=folder,
        resumed=("eval", evaluation.command[0], "--resume", str(folder)),
        result=folder / "results.json",
    )


def folder_of(evaluation: Evaluation, run: Path) -> Path:
    """Return the folder of an evaluation of a run."""
    return run.with_name(f"{run.name}-{evaluation.name}")


def cost_of(row: Row) -> Cost:
    """Estimate the cost of a row's pretraining; nothing is run."""
    experiment = experiments()[row.preset]()
    samples, flops = samples_of(experiment, video_of(row)), flops_per_sample(experiment.method)
    found = next(chip for chip in CHIPS if chip.name == GPU).peak(experiment.run.precision)
    assert found is not None
    slow, fast = (samples * flops / (found[0] * share) / 3600 for share in UTILISATION)
    return Cost(samples=samples, giga_flops_per_sample=flops / 1e9, gpu_hours=(fast, slow))


def samples_of(experiment: Experiment, video: Dataset) -> int:
    """Return the samples of a run on the data of the paper."""
    run, data = experiment.run, experiment.data
    if run.steps:
        return run.steps * run.accumulate * data.batch_size
    return round(run.epochs * CLIPS[video.title])


def numbers_of(row: Row, folders: Folders) -> list[Number]:
    """Return the numbers of a row; ours are None where nothing was run.

    Raises:
        MidwayError: A file of results is damaged.

    """
    ours: list[tuple[str, float | None]] = []
    for evaluation in row.evaluations:
        path = folder_of(evaluation, folders.runs / row.preset) / "results.json"
        results = read_json(path) if path.is_file() else {}
        ours += [(metric.title, metric.of(results)) for metric in evaluation.metrics]
    return [
        Number(metric=title, paper=paper, ours=value)
        for (title, value), paper in zip(ours, row.numbers, strict=True)
    ]


def require_data(row: Row, folders: Folders) -> None:
    """Check that the data of a row exist.

    Raises:
        MidwayError: A folder is missing.

    """
    for dataset in data_of(row):
        if not (folders.data / dataset.folder).exists():
            raise MidwayError(
                f"{folders.data / dataset.folder}: {dataset.title} is missing; put it there, or "
                "see --plan"
            )
