"""Option ``--plan`` of ``midway train``: what a run will take, before it starts."""

import os
import shlex
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.console import Console
from rich.table import Table

from midway.bench.plan import OnChip, RunPlan, plan_run
from midway.cli.options import say
from midway.config import to_json
from midway.data.clips.find import ClipList
from midway.data.clips.store import is_store
from midway.data.views.spec import ClipSpec
from midway.errors import counted, duration
from midway.experiments.base import Experiment
from midway.progress import ProgressBar

GB = 1e9
LONG_HOURS = 12.0
"""Duration on this machine from which a shorter run is suggested."""
FEW_HOURS = 0.5
"""Hours of video below which little can be learnt."""
MIN_STEPS = 100
"""Smallest number of steps that is suggested."""
USUAL = "A100"
"""Chip for which reading is planned on a machine without a GPU."""


def show_plan(
    command: Sequence[str], experiment: Experiment, found: ClipList, spec: ClipSpec
) -> dict[str, Any]:
    """Print the plan of a run, and return it as JSON values.

    Args:
        command: Words that start the run.
        experiment: The experiment.
        found: Clips of its data.
        spec: Samples of its method.

    """
    with ProgressBar("plan", transient=True) as bar:
        plan = plan_run(experiment, found, spec, announce=lambda text: bar.update(text=text))
    root = experiment.data.root
    say(f"{experiment.run.folder}: {experiment.method.name} on {root}")
    for title, text in _rows(plan, experiment):
        say(f"  {title:<13}{text}")
    for line in _advice(plan, experiment):
        say(line)
    if plan.chips:
        _print_chips(plan)
    target = _target(plan)
    if not is_store(root):
        say(f"can reading keep up? midway prepare {shlex.quote(root)} --measure --target {target}")
    say(f"start: {shlex.join(command)}")
    return {"root": root, "config": to_json(experiment), "target": target} | asdict(plan)


def _rows(plan: RunPlan, experiment: Experiment) -> list[tuple[str, str]]:
    length, needs, here = plan.length, plan.needs, plan.here
    low, high = experiment.data.gap_seconds
    frames = "1 frame"
    if length.frames_per_sample > 1:
        frames = f"{length.frames_per_sample} frames, {low:g} to {high:g} s apart"
    free = f", {needs.free_disk_bytes / GB:,.0f} GB are free"
    return [
        (
            "video",
            f"{counted(length.clips, 'clip')}, {duration(3600 * length.hours)}; "
            f"{length.skipped_clips:,} skipped",
        ),
        ("sample", f"{frames}; {length.samples_per_epoch:,} in an epoch"),
        (
            "length",
            f"{counted(length.steps, 'step')} of {counted(length.samples_per_step, 'sample')}: "
            f"{length.samples:,} samples, {short(length.epochs)} epochs, "
            f"{short(length.samples_per_second_of_video)} for each second of video",
        ),
        (
            "disk",
            f"{needs.disk_bytes / GB:.2f} GB in {experiment.run.folder}, "
            f"{needs.checkpoint_bytes / GB:.2f} GB a checkpoint{free}",
        ),
        (
            "memory",
            f"about {needs.memory_bytes / GB:.1f} GB a device for "
            f"{counted(needs.samples_per_device, 'sample')} (counted, not measured)",
        ),
        ("this machine", f"{duration(here.seconds)}, limited by {here.limit}"),
        (
            "  compute",
            f"{_time(here.trial.compute_seconds)} a sample on {here.trial.device}, timed on "
            f"{here.trial.samples}",
        ),
        (
            "  reading",
            f"{_time(here.trial.read_seconds)} of a core a sample; "
            f"{counted(here.trial.cores, 'core')} here, {here.cores_to_read:,} needed",
        ),
    ]


def _advice(plan: RunPlan, experiment: Experiment) -> list[str]:
    """Return a line for each thing that would go wrong or waste time."""
    length, needs, here = plan.length, plan.needs, plan.here
    lines = []
    if length.first_skipped:
        lines.append(f"skipped: {length.first_skipped}")
    if needs.disk_bytes > needs.free_disk_bytes:
        lines.append("note: the disk is too small; choose another --run.folder")
    if here.trial.device == "cpu" and needs.memory_bytes > (memory := _physical_memory()):
        lines.append(
            f"note: this machine has {memory / GB:.0f} GB of memory; give a smaller "
            "--data.batch-size, and raise --run.accumulate by the same factor"
        )
    if here.trial.ran_out_of_memory:
        lines.append(
            f"note: this GPU has memory for about {here.trial.samples} samples; give a smaller "
            "--data.batch-size and as many times --run.accumulate, or --run.recompute"
        )
    if length.hours < FEW_HOURS:
        lines.append(
            "note: less than half an hour of video; features of a published network are likely to "
            "be better (midway list networks), also as a start: --method.start NAME"
        )
    steps = int(length.steps * 3600 / here.seconds)
    if here.seconds > 3600 * LONG_HOURS and steps >= MIN_STEPS:
        lines.append(f"note: --run.steps {steps} would take an hour on this machine")
    elif here.seconds > 3600 * LONG_HOURS and here.trial.device == "cpu":
        lines.append("note: too long for a CPU; to try the whole way here: own.midway_tiny")
    if here.trial.device == "cpu" and experiment.run.precision == "16-mixed":
        lines.append("note: float16 is slow on a CPU; --run.precision bf16-mixed is not")
    if here.limit == "data" and experiment.data.starts != "keyframes":
        lines.append(
            "note: reading limits this run; --data.starts keyframes --data.targets keyframes cost "
            "less to decode, and a frame store less still"
        )
    return lines


def _physical_memory() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _print_chips(plan: RunPlan) -> None:
    low, high = plan.utilisation
    title = (
        f"estimates for {counted(plan.chips[0].devices, 'GPU')} at {high:.0%} to {low:.0%} of its "
        "peak (not measured)"
    )
    columns = ("GPU", "precision", "hours", "samples/s", "cores to read", "batch")
    table = Table(*columns, title=title)
    for column in table.columns[2:]:
        column.justify = "right"
    for chip in plan.chips:
        table.add_row(
            chip.name,
            chip.precision,
            "-".join(map(short, chip.hours)),
            "-".join(map(short, chip.samples_per_second)),
            "-".join(map(short, chip.cores)),
            _batch(chip, plan.length.samples_per_step),
        )
    Console(file=sys.stdout).print(table)
    print(
        "batch: --data.batch-size x --run.accumulate that fit into memory; cores: as fast as here"
    )


def _batch(chip: OnChip, samples: int) -> str:
    """Return the batch and the accumulation with which a step fits into the memory."""
    if chip.accumulate is None:
        return "too small"
    return f"{samples // chip.accumulate} x {chip.accumulate}"


def _target(plan: RunPlan) -> int:
    """Return the pairs per second with which reading would not limit this GPU, or an A100."""
    frames, rate = plan.length.frames_per_sample, 1 / plan.here.trial.compute_seconds
    if plan.here.trial.device == "cpu":
        rate = max(
            [chip.samples_per_second[0] for chip in plan.chips if chip.name == USUAL], default=rate
        )
    return max(1, round(rate * frames / 2))


def short(number: float) -> str:
    """Format a number briefly, with at most three digits.

    Examples:
        >>> [short(each) for each in (0.004, 0.14, 7.84, 155.2, 26088)]
        ['<0.1', '0.14', '7.8', '155', '26k']

    """
    if number >= 10_000:
        return f"{number / 1000:,.0f}k"
    if number >= 10:
        return f"{number:,.0f}"
    return f"{number:.2g}" if number >= 0.1 else "<0.1"


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{1e3 * seconds:.3g} ms"
