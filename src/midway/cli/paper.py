"""Command ``midway paper table9``: print a table of the paper beside our figures."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from midway.bench import table9 as costs
from midway.cli.options import parse
from midway.errors import MidwayError
from midway.progress import progress

USAGE = """usage: midway paper table9 [--json]

table9: multiply-adds and parameters of the methods, counted beside the paper's."""
HEADER = ("method", "sample", "run", "counted", "paper", "diff", "M params", "paper", "diff")


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print a table of the paper."""
    tables = {"table9": table9}
    if words and words[0] in tables:
        return parse(tables[words[0]], words[1:], prog=f"midway paper {words[0]}")
    if words and words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    raise MidwayError(f"no table; give one: midway paper {' | '.join(tables)}")


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
