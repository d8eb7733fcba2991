"""Command ``midway train EXPERIMENT`` or ``midway train --resume RUN``: pretraining."""

import difflib
import inspect
import shlex
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from midway.cli.options import description, next_step, parse, say
from midway.config import read_json
from midway.data.clips.find import ClipList
from midway.data.clips.frame_folder import FrameSequence
from midway.data.files import is_url
from midway.errors import INTERRUPTED, MidwayError, counted, duration
from midway.experiments.base import (
    Experiment,
    experiment_from_json,
    experiments,
    find_data,
    sample_spec,
    train,
)

if TYPE_CHECKING:
    from midway.train.fit import FitSummary

USAGE = """usage: midway train EXPERIMENT [--data.root DIR] [--field value ...] [--plan] [--json]
       midway train --resume RUN [--field value ...] [--json]

midway list shows the experiments, midway train EXPERIMENT --help the fields of one.
--plan shows time, memory and disk of a run, from a few steps, and does not start it.
On --resume, these may change: length, hardware, logging, checkpointing, location of the data,
labels of the health metrics, compilation and recomputation.
Exit code: 0 done, 2 user error (one line), 3 interrupted (checkpoint written; use --resume)."""


PLAN = """
--plan shows time, memory and disk of the run on this machine and on known GPUs, without a run."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Train an experiment, or resume the run in a folder."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    planned, words = "--plan" in words, [word for word in words if word != "--plan"]
    if not words:
        raise MidwayError("--plan: no experiment; give its name, see midway list")
    if words[0] == "--resume":
        return _resume(words, planned=planned)
    name, *rest = words
    if name.startswith("-"):
        raise MidwayError(f"{name}: give the experiment first: midway train EXPERIMENT {name} ...")
    function = _named(name)
    base, about = function(), description(function) + PLAN
    experiment = parse(Experiment, rest, prog=f"midway train {name}", default=base, about=about)
    root = experiment.data.root
    if root == base.data.root and not is_url(root) and not Path(root).exists():
        raise MidwayError(f"{root}: does not exist; give the folder of your data by --data.root")
    follow, found = getattr(inspect.getmodule(function), "follow_data", None), None
    if planned or follow:
        spec = sample_spec(experiment.method)
        found = find_data(experiment.data, spec)
        if follow:
            experiment = follow(experiment, found, base=base, fixed=_fields(rest))
        if planned:
            from midway.cli.train_plan import show_plan  # imports the benchmarks

            return show_plan(["midway", "train", *words], experiment, found, spec)
        from lightning_fabric.utilities.rank_zero import rank_zero_only  # takes seconds

        rank_zero_only(say)(_chosen(experiment, found))
    return _result(experiment, train(experiment, found=found))


def _resume(words: Sequence[str], *, planned: bool) -> dict[str, Any]:
    if len(words) < 2:
        raise MidwayError("--resume: no run; give the folder of one, midway train --resume RUN")
    if planned:
        raise MidwayError("--plan: cannot describe a resumed run; leave out --plan or --resume")
    folder = Path(words[1])
    prog, about = f"midway train --resume {folder}", "Continue a run."
    experiment = parse(Experiment, words[2:], prog=prog, default=_resumed(folder), about=about)
    return _result(experiment, train(experiment, resume=True))


def _result(experiment: Experiment, summary: "FitSummary") -> dict[str, Any]:
    if not summary.is_main:
        raise SystemExit(0)  # the first process reports for all, including the exit code
    folder = experiment.run.folder
    ended = "interrupted" if summary.interrupted else "done"
    say(f"{ended}: {counted(summary.steps, 'step')}, {folder}")
    resume = f"next: midway train --resume {shlex.quote(str(folder))}"
    say(resume if summary.interrupted else next_step(folder))
    return {
        "run": str(folder),
        "steps": summary.steps,
        "skipped_steps": summary.skipped_steps,
        "interrupted": summary.interrupted,
        "checkpoint": None if summary.checkpoint is None else str(summary.checkpoint),
        "exit_code": INTERRUPTED if summary.interrupted else 0,
    }


def _fields(words: Sequence[str]) -> set[str]:
    """Return the fields that options set, such as ``run.steps``."""
    options = (word.partition("=")[0] for word in words if word.startswith("--"))
    return {option.removeprefix("--").replace("-", "_") for option in options}


def _chosen(experiment: Experiment, found: ClipList) -> str:
    """Return the line that says what follows the data."""
    data, run = experiment.data, experiment.run
    length = counted(run.steps, "step") if run.steps else f"{run.epochs:g} epochs"
    starts = {
        "random": "random starts",
        "every_frame": "every frame a start",
        "keyframes": "starts at keyframes",
    }[data.starts]
    # Folders of images state no rate.
    has_images = any(isinstance(clip, FrameSequence) for clip in found.clips)
    rate = f" ({data.fps:g} images a second, --data.fps)" if has_images else ""
    return (
        f"{counted(len(found.clips), 'clip')}, {duration(found.seconds)}{rate}: {length} of "
        f"{counted(data.batch_size * run.accumulate, 'sample')}, {starts}"
    )


def _named(name: str) -> Callable[[], Experiment]:
    known = experiments()
    if name not in known:
        near = [each for each in known if each.startswith(f"{name}.")]
        near = near or difflib.get_close_matches(name, known, n=1)
        hint = f"did you mean {' or '.join(map(repr, near))}? " if near else ""
        raise MidwayError(f"no experiment '{name}'; {hint}see midway list")
    return known[name]


def _resumed(folder: Path) -> Experiment:
    path = folder / "config.json"
    if not path.is_file():
        raise MidwayError(f"{folder}: is not a run, it has no config.json; check the path")
    experiment = experiment_from_json(read_json(path), where=str(path))
    return replace(experiment, run=replace(experiment.run, folder=folder))
