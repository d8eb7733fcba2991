"""Cells of the miniature benchmark and their records."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from midway.atomic import write_text
from midway.config import from_json, json_text, read_json, to_json
from midway.errors import MidwayError
from midway.evals.metrics.bootstrap import Row
from midway.evals.results import protocol_version
from midway.paper.miniature.arms import arms_by_name
from midway.paper.miniature.protocol import VERSION, Dataset, Protocol
from midway.paper.miniature.readouts import Purpose


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One arm on one dataset with one seed and one setting."""

    purpose: Purpose
    dataset: Dataset
    arm: str
    seed: int
    trial: int | None
    """Index of its trial; 0 for arms without training, None if no trial is chosen yet."""
    rate: int | None = None
    """Index of the rate of its flow finetuning; None for other cells."""

    @property
    def name(self) -> str:
        """Name of its record."""
        trial = f"-trial{self.trial}" if self.purpose == "choose" else ""
        rate = "" if self.rate is None else f"-rate{self.rate}"
        return f"{self.purpose}-{self.dataset}-{self.arm}-{self.seed}{trial}{rate}"

    def config_hash(self, protocol: Protocol) -> str:
        """Return a short hash of all that determines the cell: protocol, method and settings.

        Raises:
            MidwayError: There is no such arm.

        """
        arm = arms_by_name().get(self.arm)
        if arm is None:
            raise MidwayError(f"{self.name}: there is no arm '{self.arm}'; remove the record")
        method: Any = arm.kind
        if arm.build:
            config = arm.build(protocol, protocol.trials[self.trial or 0])
            kind: Any = type(config)
            # Without the defaults, so that a new option of a method leaves its records valid.
            method = _changed(to_json(config), to_json(kind()))
        settings = [protocol.hash(), asdict(self), method, arm.pairs]
        return protocol_version(VERSION, settings)


@dataclass(frozen=True, kw_only=True)
class Record:
    """Result of a cell, as its file stores it."""

    protocol: str
    """Hash of the protocol."""
    config: str
    """Hash of all that determines the cell; see `Cell.config_hash`."""
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
    rate: int | None = None
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
            rate=self.rate,
        )


def read_records(folder: Path, protocol: Protocol) -> list[Record]:
    """Read the records of a protocol from a folder, in the order of their names.

    Raises:
        MidwayError: A record is damaged, of another protocol, or of an arm that has changed.

    """
    found = []
    for path in sorted(folder.glob("*.json")):
        record = from_json(Record, read_json(path), where=str(path))
        if record.protocol != protocol.hash():
            raise MidwayError(
                f"{path}: has protocol {record.protocol}, not {protocol.hash()}; "
                "give another --records"
            )
        if record.config != record.cell.config_hash(protocol):
            raise MidwayError(
                f"{path}: its arm has changed since the run; remove the file and run the cell again"
            )
        found.append(record)
    return found


def _changed(values: Mapping[str, Any], defaults: Mapping[str, Any]) -> dict[str, Any]:
    """Return the JSON values that differ from their defaults, also in nested objects."""
    return {
        name: _changed(value, default) if isinstance(value, dict) and default else value
        for name, value in values.items()
        if value != (default := defaults.get(name))
    }


def write_record(record: Record, folder: Path) -> None:
    """Write a record under the name of its cell, atomically."""
    folder.mkdir(parents=True, exist_ok=True)
    text = json_text(asdict(record)) + "\n"
    write_text(folder / f"{record.cell.name}.json", text)
