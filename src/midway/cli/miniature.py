"""Command ``midway paper miniature``: run and tabulate the miniature benchmark."""

import time
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any, Literal

from midway.atomic import write_text
from midway.cli.options import say
from midway.errors import INTERRUPTED, MidwayError, counted
from midway.paper.miniature.arms import arms_by_name
from midway.paper.miniature.cells import all_cells, chosen_trials
from midway.paper.miniature.protocol import LONG, PROTOCOL, Protocol
from midway.paper.miniature.records import Cell, Record, read_records, write_record
from midway.paper.miniature.running import Places, run_cell
from midway.paper.miniature.tables import page

LONG_RECORDS = "long"
"""Subfolder of the records of the long protocol."""
ABOUT = "Train the methods of the paper alike for minutes, score them alike, and write the tables."


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of the command."""

    arm: str = ""
    """Arm to run, such as midway; all if empty."""
    dataset: Literal["", "synthetic", "camvid"] = ""
    """Dataset to run; both if empty."""
    seed: int | None = None
    """Seed to run; all if not given."""
    camvid: Path | None = None
    """Folder of CamVid, with train, test and their annotations; not needed for synthetic."""
    flow: bool = False
    """Also finetune each arm for flow at three rates, which costs most of the time."""
    budget: float = 0.0
    """Minutes after which a cell's training stops in this call, to continue in the next; 0 for no
    limit. Numbers do not depend on it."""
    long: bool = False
    """Train five arms for twice the steps, and add the linear readout in windows; records are in
    RECORDS/long."""
    plan: bool = False
    """List the cells with their state and estimated time; run nothing."""
    tables: bool = False
    """Write the page from the records of both protocols; run nothing."""
    folder: Path = Path("miniature")
    """Folder of training data and runs."""
    records: Path = Path("docs/miniature")
    """Folder of the records, one small file per cell."""
    page: Path = Path("docs/MINIATURE.md")
    """Page with the tables."""

    def __post_init__(self) -> None:
        if self.arm and self.arm not in arms_by_name():
            names = ", ".join(arms_by_name())
            raise MidwayError(f"--arm {self.arm}: there is no such arm; there are {names}")
        if self.budget < 0:
            raise MidwayError(f"--budget {self.budget:g}: give 0 minutes or more")

    def takes(self, cell: Cell) -> bool:
        """Return whether a cell is among those to run, or is a trial that one of them needs."""
        if cell.purpose == "choose":
            return not self.arm or arms_by_name()[self.arm].chooser == cell.arm
        return (
            (self.flow or cell.purpose != "flow")
            and self.arm in ("", cell.arm)
            and self.dataset in ("", cell.dataset)
            and self.seed in (None, cell.seed)
        )


def main(
    options: Options, protocol: Protocol = PROTOCOL, long_protocol: Protocol = LONG
) -> dict[str, Any]:
    """Run the cells that have no record, or show the plan, or write the tables."""
    if options.tables:
        return _write_page(options, protocol, long_protocol)
    if options.long:
        protocol = long_protocol
        options = replace(options, records=options.records / LONG_RECORDS)
        if options.arm and options.arm not in protocol.arms:
            names = ", ".join(protocol.arms)
            raise MidwayError(f"--arm {options.arm}: is not run with --long; choose from {names}")
    if options.plan:
        return _plan(options, protocol)
    return _run(options, protocol)


def _run(options: Options, protocol: Protocol) -> dict[str, Any]:
    """Run cell after cell; a cell that meets its budget is left for the next call."""
    places = Places(work=options.folder, camvid=options.camvid)
    unfinished: list[str] = []
    while cell := next(
        (
            cell
            for cell, record in _cells(options, protocol)
            if record is None and cell.trial is not None and cell.name not in unfinished
        ),
        None,
    ):
        deadline = time.monotonic() + 60 * options.budget if options.budget else inf
        record = run_cell(cell, protocol, places, deadline=deadline)
        if record is None:
            unfinished.append(cell.name)
            say(f"{cell.name}: is not finished; continue by the same command")
            if time.monotonic() < deadline:
                break  # a signal ended the training, not the budget
        else:
            write_record(record, options.records)
            say(f"{cell.name}: {record.failure or _shown(record)}")
    found = {"records": str(options.records), "unfinished": unfinished}
    return found | ({"exit_code": INTERRUPTED} if unfinished else {})


def _cells(options: Options, protocol: Protocol) -> list[tuple[Cell, Record | None]]:
    """Return the cells of the options in their order, each with its record, if there is one."""
    records = read_records(options.records, protocol)
    names = {record.cell.name: record for record in records}
    cells = all_cells(protocol, chosen_trials(records, protocol))
    return [(cell, names.get(cell.name)) for cell in cells if options.takes(cell)]


def _shown(record: Record) -> str:
    scores = "  ".join(f"{name} {value:.4g}" for name, value in record.scores.items())
    return f"{scores}  ({record.seconds['train'] + record.seconds['evaluate']:.0f} s)"


def _plan(options: Options, protocol: Protocol) -> dict[str, Any]:
    """Print the cells with their state and time, measured or estimated from other seeds."""
    cells = _cells(options, protocol)
    times: dict[tuple[str, str], list[float]] = {}
    for cell, record in cells:
        if record:
            for key in ((cell.arm, cell.dataset), (cell.arm, "")):
                times.setdefault(key, []).append(sum(record.seconds.values()))
    planned = []
    for cell, record in cells:
        known = times.get((cell.arm, cell.dataset)) or times.get((cell.arm, ""))
        seconds = sum(record.seconds.values()) if record else fmean(known) if known else None
        state = "done" if record else "waits for its trials" if cell.trial is None else "to run"
        shown = "not known" if seconds is None else f"{seconds:.0f} s"
        say(f"{cell.name:<44} {state:<22} {shown}")
        planned.append({"cell": cell.name, "state": state, "seconds": seconds})
    return {"protocol": protocol.hash(), "cells": planned}


def _write_page(options: Options, short: Protocol, long: Protocol) -> dict[str, Any]:
    """Replace the tables of the page by those of the records."""
    parts = {
        "": (read_records(options.records, short), short),
        "Twice as long": (read_records(options.records / LONG_RECORDS, long), long),
    }
    try:
        text = options.page.read_text(encoding="utf-8")
    except OSError as error:
        raise MidwayError(f"--page {options.page}: {error.strerror}; give its path") from None
    text = page(text, parts)
    write_text(options.page, text)
    count = sum(len(records) for records, _ in parts.values())
    say(f"{options.page}: tables of {counted(count, 'record')}")
    return {"page": str(options.page), "records": count}
