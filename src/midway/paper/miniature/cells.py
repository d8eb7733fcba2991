"""Cells of the miniature benchmark: their order, their records, and running them."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from math import inf
from pathlib import Path

import torch

from midway.atomic import write_atomically
from midway.config import from_json, json_text, read_json
from midway.errors import DivergedError, MidwayError
from midway.evals.probes.baselines import FilterEnergies, PatchFeaturesConfig, PixelPatches
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import VisionTransformer
from midway.paper.miniature.arms import ARMS, Arm, arms_by_name
from midway.paper.miniature.measures import CHOOSING, MEASURES, Measurement, Row, score
from midway.paper.miniature.protocol import DATASETS, Dataset, Protocol
from midway.paper.miniature.readouts import Purpose, Readouts, readouts
from midway.paper.miniature.training import Job, Outcome, train

DIGITS = 5
"""Significant digits of the numbers in a record."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm on one dataset with one seed and one setting."""

    purpose: Purpose
    dataset: Dataset
    arm: str
    seed: int
    trial: int | None
    """Index of its trial; 0 for arms without training, None if it is not chosen yet."""

    @property
    def name(self) -> str:
        """Name of its record."""
        trial = f"-trial{self.trial}" if self.purpose == "choose" else ""
        return f"{self.purpose}-{self.dataset}-{self.arm}-{self.seed}{trial}"


@dataclass(frozen=True, kw_only=True)
class Record:
    """Result of a cell, as it is committed."""

    protocol: str
    """Hash of the protocol."""
    purpose: Purpose
    dataset: Dataset
    arm: str
    seed: int
    trial: int
    steps: int
    """Optimiser steps; 0 without training."""
    failure: str = ""
    """Reason of a failed training, "diverged"; empty if it succeeded."""
    losses: tuple[float, float] | None = None
    """First and last logged loss."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Time of training and of the evaluation, measured beside other processes."""
    scores: dict[str, float] = field(default_factory=dict)
    rows: dict[str, list[Row]] = field(default_factory=dict)
    """Numerators and denominators of each measure, block by block, for the bootstrap."""
    midway: str = ""
    date: str = ""

    @property
    def cell(self) -> Cell:
        """Cell of the record."""
        return Cell(
            purpose=self.purpose,
            dataset=self.dataset,
            arm=self.arm,
            seed=self.seed,
            trial=self.trial,
        )


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders of the benchmark."""

    records: Path
    work: Path
    """Folder of training data and runs, by the hash of the protocol."""
    camvid: Path | None = None


def read_records(folder: Path, protocol: Protocol) -> list[Record]:
    """Read the records of a protocol from a folder, in the order of their names.

    Raises:
        MidwayError: A record is damaged, or of another protocol.

    """
    found = []
    for path in sorted(folder.glob("*.json")):
        record = from_json(Record, read_json(path), where=str(path))
        if record.protocol != protocol.hash():
            raise MidwayError(
                f"{path}: has protocol {record.protocol}, not {protocol.hash()}; "
                "give another --records"
            )
        found.append(record)
    return found


def all_cells(protocol: Protocol, chosen: Mapping[str, int]) -> list[Cell]:
    """Return all cells in their order.

    The arms with the most seeds come first, with their trials and one seed; then the others; then
    one more seed of every arm after the other.

    Args:
        protocol: Trials and seeds.
        chosen: Chosen trial by arm, of the arms whose trials are done.

    """
    found = []
    for count in sorted({arm.num_seeds for arm in ARMS}, reverse=True):
        arms = [arm for arm in ARMS if arm.num_seeds == count]
        found += [cell for arm in arms for cell in _trials(arm, protocol)]
        found += _reported(arms, 0, chosen)
    for seed in range(1, max(arm.num_seeds for arm in ARMS)):
        found += _reported([arm for arm in ARMS if seed < arm.num_seeds], seed, chosen)
    return found


def _trials(arm: Arm, protocol: Protocol) -> list[Cell]:
    """Return the cells of an arm's trials; none if another arm chooses for it."""
    has_trials = arm.is_trained and arm.chooser == arm.name
    return [
        Cell(
            purpose="choose",
            dataset="synthetic",
            arm=arm.name,
            seed=protocol.choosing_seed,
            trial=trial,
        )
        for trial in range(len(protocol.trials) if has_trials else 0)
    ]


def _reported(arms: Sequence[Arm], seed: int, chosen: Mapping[str, int]) -> list[Cell]:
    """Return the reported cells of a seed on both datasets."""
    return [
        Cell(
            purpose="report",
            dataset=dataset,
            arm=arm.name,
            seed=seed,
            trial=chosen.get(arm.chooser) if arm.is_trained else 0,
        )
        for dataset in DATASETS
        for arm in arms
    ]


def chosen_trials(records: Sequence[Record], protocol: Protocol) -> dict[str, int]:
    """Return the best trial of each arm whose trials are all done, by the mean of `CHOOSING`."""
    found: dict[str, int] = {}
    for arm in ARMS:
        trials = {
            record.trial: sum(record.scores.get(name, -inf) for name in CHOOSING)
            for record in records
            if record.purpose == "choose" and record.arm == arm.name
        }
        if len(trials) == len(protocol.trials):
            # The first of equal ones, whatever their order.
            found[arm.name] = max(sorted(trials), key=lambda trial: trials[trial])
    return found


def run_cell(cell: Cell, protocol: Protocol, places: Places, *, deadline: float) -> Record | None:
    """Train and score a cell; return its record, or None if the deadline came first.

    Args:
        cell: Cell with a trial.
        protocol: All constants.
        places: Folders.
        deadline: Value of `time.monotonic` from which no training step begins.

    Raises:
        MidwayError: Data are missing, or the folder of the run is in use.

    """
    assert cell.trial is not None
    # Other numbers of threads sum in another order, so that results would depend on them.
    torch.set_num_threads(1)
    arm, work = arms_by_name()[cell.arm], places.work / protocol.hash()
    data = readouts(protocol, cell.dataset, cell.purpose, places.camvid)
    outcome, failure = Outcome(encoder=_fresh(arm, protocol, cell.seed)), ""
    if arm.is_trained:
        job = Job(
            protocol=protocol,
            arm=arm,
            dataset=cell.dataset,
            seed=cell.seed,
            trial=protocol.trials[cell.trial],
            folder=work / "runs" / cell.name,
            data=work / "data",
            camvid=places.camvid,
        )
        try:
            outcome = train(job, deadline)
        except DivergedError:
            failure = "diverged"
        if not outcome.is_finished:
            return None
    start = time.monotonic()
    rows = {} if failure else _rows(outcome, arm, data, cell.purpose)
    return Record(
        protocol=protocol.hash(),
        purpose=cell.purpose,
        dataset=cell.dataset,
        arm=cell.arm,
        seed=cell.seed,
        trial=cell.trial,
        steps=protocol.steps if arm.is_trained else 0,
        failure=failure,
        losses=outcome.losses,
        seconds={"train": outcome.seconds, "evaluate": round(time.monotonic() - start, 1)},
        scores={name: _rounded(score(each, name)) for name, each in rows.items()},
        rows=rows,
        midway=version("midway-network"),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def write_record(record: Record, cell: Cell, folder: Path) -> None:
    """Write the record of a cell, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json_text(asdict(record)) + "\n"
    write_atomically(folder / f"{cell.name}.json", lambda file: file.write(text.encode()))


def _rows(outcome: Outcome, arm: Arm, data: Readouts, purpose: Purpose) -> dict[str, list[Row]]:
    """Score an encoder by all measures that the dataset has a truth for."""
    measurement = Measurement(
        encoder=outcome.encoder.eval(),
        data=data,
        network=outcome.network,
        matches_pixels=arm.kind == "pixels",
    )
    found = {
        name: measurement.rows(name)
        for name in (CHOOSING if purpose == "choose" else tuple(MEASURES))
    }
    return {
        name: [([_rounded(x) for x in above], below) for above, below in rows]
        for name, rows in found.items()
        if any(any(below) for _, below in rows)
    }


def _fresh(arm: Arm, protocol: Protocol, seed: int) -> Encoder:
    """Return the encoder of an arm without training; for others, one with fresh weights."""
    config = PatchFeaturesConfig(patch_size=protocol.encoder.patch_size)
    if arm.kind == "filters":
        return FilterEnergies(config, seed=seed)
    if arm.kind == "pixels":
        return PixelPatches(config)
    torch.manual_seed(seed)
    return VisionTransformer(protocol.encoder)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
