"""Training and scoring of a cell."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

import torch

from midway.errors import DivergedError
from midway.evals.metrics.bootstrap import Row
from midway.evals.probes.baselines import FilterEnergies, PatchFeaturesConfig, PixelPatches
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import VisionTransformer
from midway.paper.miniature.arms import Arm, arms_by_name
from midway.paper.miniature.flow import finetune, finetuned_errors
from midway.paper.miniature.measures import (
    CHOOSING,
    MEASURES,
    Measurement,
    by_block,
    score,
    still_rows,
)
from midway.paper.miniature.protocol import Protocol
from midway.paper.miniature.readouts import Readouts, readouts
from midway.paper.miniature.records import Cell, Record
from midway.paper.miniature.training import Job, Outcome, train

DIGITS = 5
"""Significant digits of the numbers in a record."""


@dataclass(frozen=True, kw_only=True)
class Places:
    """Folders of the benchmark."""

    work: Path
    """Folder of training data and runs; each protocol has a subfolder, named by its hash."""
    camvid: Path | None = None


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
    # The number of threads changes the order of sums, and so the results.
    torch.set_num_threads(1)
    arm, work = arms_by_name()[cell.arm], places.work / protocol.hash()
    data = readouts(protocol, cell.dataset, cell.purpose, places.camvid)
    try:
        outcome = _pretrained(cell, arm, protocol, places, work, deadline)
        start = time.monotonic()
        if outcome.is_finished and cell.rate is not None:
            rows = _finetuned(cell, outcome, protocol, data, work / "runs" / cell.name, deadline)
        else:
            rows = _rows(outcome, arm, data, cell, protocol) if outcome.is_finished else None
    except DivergedError:
        return _record(cell, protocol, failure="diverged")
    if rows is None:
        return None
    seconds = {"train": outcome.seconds, "evaluate": round(time.monotonic() - start, 1)}
    return _record(cell, protocol, losses=outcome.losses, seconds=seconds, rows=rows)


def _pretrained(
    cell: Cell, arm: Arm, protocol: Protocol, places: Places, work: Path, deadline: float
) -> Outcome:
    """Return the pretrained arm of a cell; train it first if needed."""
    if not arm.is_trained:
        return Outcome(encoder=_fresh(arm, protocol, cell.seed))
    assert cell.trial is not None
    pretraining = cell if cell.rate is None else replace(cell, purpose="report", rate=None)
    job = Job(
        protocol=protocol,
        arm=arm,
        dataset=cell.dataset,
        seed=cell.seed,
        trial=protocol.trials[cell.trial],
        folder=work / "runs" / pretraining.name,
        data=work / "data",
        camvid=places.camvid,
    )
    return train(job, deadline)


def _finetuned(
    cell: Cell, outcome: Outcome, protocol: Protocol, data: Readouts, folder: Path, deadline: float
) -> dict[str, list[Row]] | None:
    """Finetune an arm for flow and score it; return None if the deadline came first."""
    assert cell.rate is not None
    assert data.pairs is not None
    network, is_finished = finetune(
        outcome,
        protocol,
        folder,
        arm=cell.arm,
        seed=cell.seed,
        rate=protocol.flow_rates[cell.rate],
        deadline=deadline,
    )
    if not is_finished:
        return None
    errors = finetuned_errors(network, data.pairs)
    return {"finetuned": _short(by_block(errors, len(data.test.images) // data.frames_per_block))}


def _record(
    cell: Cell,
    protocol: Protocol,
    *,
    failure: str = "",
    losses: tuple[float, float] | None = None,
    seconds: Mapping[str, float] | None = None,
    rows: Mapping[str, list[Row]] | None = None,
) -> Record:
    return Record(
        protocol=protocol.hash(),
        config=cell.config_hash(protocol),
        purpose=cell.purpose,
        dataset=cell.dataset,
        arm=cell.arm,
        seed=cell.seed,
        trial=cell.trial or 0,
        rate=cell.rate,
        steps=protocol.steps if arms_by_name()[cell.arm].is_trained else 0,
        failure=failure,
        losses=losses,
        seconds=dict(seconds or {}),
        scores={name: _rounded(score(each, name)) for name, each in (rows or {}).items()},
        rows=dict(rows or {}),
        midway=version("midway-network"),
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
    )


def _rows(
    outcome: Outcome, arm: Arm, data: Readouts, cell: Cell, protocol: Protocol
) -> dict[str, list[Row]]:
    """Score an encoder by all measures for which the dataset has ground truth."""
    if arm.kind == "still":
        found = still_rows(data)
    else:
        measurement = Measurement(
            encoder=outcome.encoder.eval(),
            data=data,
            network=outcome.network,
            window=protocol.window_readout,
            matches_pixels=arm.kind == "pixels",
        )
        names = CHOOSING if cell.purpose == "choose" else tuple(MEASURES)
        found = {name: measurement.rows(name) for name in names}
    return {
        name: _short(rows) for name, rows in found.items() if any(any(below) for _, below in rows)
    }


def _short(rows: Sequence[Row]) -> list[Row]:
    """Return rows with rounded numerators."""
    return [([_rounded(each) for each in above], below) for above, below in rows]


def _fresh(arm: Arm, protocol: Protocol, seed: int) -> Encoder:
    """Return the encoder of an arm without training; for others, one with fresh weights."""
    config = PatchFeaturesConfig(patch_size=protocol.encoder.patch_size)
    if arm.kind == "filters":
        return FilterEnergies(config, seed=seed)
    if arm.kind in ("pixels", "still"):
        return PixelPatches(config)
    torch.manual_seed(seed)
    return VisionTransformer(protocol.encoder)


def _rounded(value: float) -> float:
    return float(f"{value:.{DIGITS}g}")
