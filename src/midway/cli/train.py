"""Command ``midway train EXPERIMENT`` or ``midway train --resume RUN``: pretraining."""

import difflib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from midway.cli.options import description, parse, say
from midway.config import read_json
from midway.errors import INTERRUPTED, MidwayError, counted
from midway.experiments.base import (
    Experiment,
    experiment_from_json,
    experiments,
    train,
)

USAGE = """usage: midway train EXPERIMENT [--data.root DIR] [--field value ...] [--json]
       midway train --resume RUN [--field value ...] [--json]

midway list shows the experiments, midway train EXPERIMENT --help the fields of one.
On --resume, these may change: length, hardware, logging, checkpointing, location of the data,
labels of the health metrics, compilation and recomputation.
Exit code: 0 done, 2 user error (one line), 3 interrupted (checkpoint written; use --resume)."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Train an experiment, or resume the run in a folder."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    resume = words[0] == "--resume"
    if resume and len(words) < 2:
        raise MidwayError("--resume: no run; give the folder of one, midway train --resume RUN")
    experiment = _resumed(Path(words[1])) if resume else _named(words[0])()
    rest = words[2:] if resume else words[1:]
    prog = f"midway train {' '.join(words[: len(words) - len(rest)])}"
    about = "Continue a run." if resume else description(_named(words[0]))
    experiment = parse(Experiment, rest, prog=prog, default=experiment, about=about)
    summary = train(experiment, resume=resume)
    if not summary.is_main:
        raise SystemExit(0)  # the first process reports for all, including the exit code
    ended = "interrupted" if summary.interrupted else "done"
    say(f"{ended}: {counted(summary.steps, 'step')}, {experiment.run.folder}")
    return {
        "run": str(experiment.run.folder),
        "steps": summary.steps,
        "skipped_steps": summary.skipped_steps,
        "interrupted": summary.interrupted,
        "checkpoint": None if summary.checkpoint is None else str(summary.checkpoint),
        "exit_code": INTERRUPTED if summary.interrupted else 0,
    }


def _named(name: str) -> Callable[[], Experiment]:
    known = experiments()
    if name not in known:
        near = difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        raise MidwayError(f"no experiment '{name}'; {hint}see midway list")
    return known[name]


def _resumed(folder: Path) -> Experiment:
    path = folder / "config.json"
    if not path.is_file():
        raise MidwayError(f"{folder}: is not a run, it has no config.json; check the path")
    experiment = experiment_from_json(read_json(path), where=str(path))
    return replace(experiment, run=replace(experiment.run, folder=folder))
