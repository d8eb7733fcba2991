"""Command ``midway paper TABLE``: print or make the numbers of a table of the paper."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from midway.bench import table9 as costs
from midway.bench.chips import UTILISATION
from midway.cli.options import parse, say
from midway.errors import INTERRUPTED, MidwayError
from midway.paper.rows import TABLES, Row
from midway.paper.steps import (
    GPU,
    Folders,
    Number,
    cost_of,
    data_of,
    numbers_of,
    require_data,
    steps_of,
)
from midway.progress import progress

USAGE = """usage: midway paper TABLE --plan [--row NAME] [--data DIR] [--runs DIR] [--json]
       midway paper TABLE [--row NAME] --data DIR [--runs DIR]
       midway paper table9 [--json]
       midway paper miniature [--plan | --tables] [--camvid DIR] [--budget MINUTES]

Tables 1 to 7 have pretraining runs with evaluations. --plan shows their commands, data, cost and
numbers, ours beside the paper's. Without it, the commands run in turn; what is done is kept, and an
interrupted one continues. Table 9 has costs of training, counted here beside the paper's.

  table1  BDD100K: segmentation and flow        table5  sizes of the dynamics
  table2  Walking Tours: the same               table6  linear readout on ADE20K
  table3  parts of the network                  table7  flow with a frozen network
  table4  longer pretraining                    table9  multiply-adds and parameters

"miniature" trains the methods for minutes on a CPU; see midway paper miniature --help."""
HEADER = ("method", "sample", "run", "counted", "paper", "diff", "M params", "paper", "diff")


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print a table of the paper."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    name, prog = words[0], f"midway paper {words[0]}"
    if name == "miniature":
        # Imported only here, because it imports all methods.
        from midway.cli import miniature

        options = parse(miniature.Options, words[1:], prog=prog, about=miniature.ABOUT)
        return miniature.main(options)
    if name == "table9":
        return parse(table9, words[1:], prog=prog)
    if name not in TABLES:
        raise MidwayError(
            f"no table '{name}'; there are {', '.join((*TABLES, 'table9', 'miniature'))}"
        )
    options = parse(_Options, words[1:], prog=prog, about="Print or make a table of the paper.")
    return _table(name, options)


@dataclass(frozen=True, kw_only=True)
class _Options:
    row: str = ""
    """Name of a row, or a part of it that no other row has; empty for all rows."""
    plan: bool = False
    """Show commands, data, cost and numbers; run nothing."""
    data: Path = Path("data")
    """Folder of all data; --plan shows the folders below it."""
    runs: Path = Path("runs/paper")
    """Folder of runs and evaluations."""


def _table(name: str, options: _Options) -> dict[str, Any]:
    rows, folders = _chosen(name, options.row), Folders(data=options.data, runs=options.runs)
    if options.plan:
        return {"table": name, "rows": [_planned(row, folders) for row in rows]}
    for row in rows:
        require_data(row, folders)
    found = []
    for row in rows:
        say(row.name)
        if code := _run(row, folders):
            return {"table": name, "rows": found, "exit_code": code}
        found.append({"row": row.name, "numbers": _shown(numbers_of(row, folders))})
    return {"table": name, "rows": found}


def _chosen(table: str, part: str) -> Sequence[Row]:
    rows = TABLES[table]
    exact = [row for row in rows if row.name == part]
    found = exact or [row for row in rows if part in row.name]
    if part and len(found) != 1:
        names = ", ".join(row.name for row in rows)
        raise MidwayError(f"--row {part}: the rows of {table} are {names}; give one")
    return found


def _run(row: Row, folders: Folders) -> int:
    """Run the steps of a row that are not done; return 0, or the exit code of the first to fail."""
    for step in steps_of(row, folders):
        if step.is_done:
            say(f"done: {step.folder}")
            continue
        say(f"midway {shlex.join(step.words)}")
        if code := step.run():
            hint = "continue by the same command" if code == INTERRUPTED else "see above"
            say(f"{row.name}: {step.folder} ended with exit code {code}; {hint}")
            return code
    return 0


def _planned(row: Row, folders: Folders) -> dict[str, Any]:
    """Print the plan of a row, and return it as JSON values."""
    cost, steps, data = cost_of(row), steps_of(row, folders), data_of(row)
    low, high = cost.gpu_hours
    say(f"{row.name}{f' ({row.note})' if row.note else ''}")
    say(
        f"  pretraining: {cost.samples:,} samples of {cost.giga_flops_per_sample:,.0f} GFLOP, "
        f"{low:,.0f} to {high:,.0f} h of one {GPU} at {UTILISATION[1]:.0%} to "
        f"{UTILISATION[0]:.0%} of its peak (estimated)"
    )
    for dataset in data:
        size = f", {dataset.gigabytes:,} GB" if dataset.gigabytes else ""
        say(f"  data: {dataset.title}{size}: {folders.data / dataset.folder}")
    for step in steps:
        say(f"  midway {shlex.join(step.words)}")
    numbers = _shown(numbers_of(row, folders))
    return {
        "row": row.name,
        "note": row.note,
        "cost": asdict(cost),
        "data": [asdict(dataset) for dataset in data],
        "commands": [["midway", *step.words] for step in steps],
        "numbers": numbers,
    }


def _shown(numbers: Sequence[Number]) -> list[dict[str, Any]]:
    """Print numbers, ours beside the paper's, and return them as JSON values."""
    for each in numbers:
        paper = "not stated" if each.paper is None else f"{each.paper:g}"
        ours = "not run" if each.ours is None else f"{each.ours:.2f}"
        say(f"  {each.metric:<27} paper {paper:<11} ours {ours}")
    return [asdict(each) for each in numbers]


def table9() -> dict[str, Any]:
    """Count the costs of all methods of table 9, and print them beside the paper's."""
    rows = [costs.count(row) for row in progress(costs.ROWS, "counting", len(costs.ROWS))]
    cells = [HEADER, *map(_cells, rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for line in cells:
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)))
    print(
        "\nMultiply-adds in 1e9 of the forward passes of one sample, by student, EMA teacher and "
        "flow network.\nrun: what our networks compute; counted: by the convention of the paper, "
        "which has tokens that nothing reads.\nParameters: encoder + decoder or dynamics; "
        "projection heads do not count.\nAssumptions:"
    )
    for row in rows:
        print(f"  {row.method:<{widths[0]}}  {row.assumption}")
    return {"rows": [asdict(row) for row in rows]}


def _cells(row: costs.Counted) -> tuple[str, ...]:
    difference = row.difference_percent
    return (
        row.method,
        row.sample,
        f"{row.run:.2f}",
        f"{row.multiply_adds:.2f}",
        f"{row.paper_multiply_adds:.1f}",
        f"{difference['multiply_adds']:+.1f} %",
        f"{row.encoder:.2f} + {row.other:.2f}" if row.other else f"{row.encoder:.2f}",
        f"{row.paper_encoder:.1f} + {row.paper_other:.1f}" if row.other else f"{row.paper_encoder}",
        f"{difference['parameters']:+.1f} %",
    )
