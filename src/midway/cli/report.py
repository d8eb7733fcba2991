"""Command ``midway report``: results of several runs in one table, and a page with pictures."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from midway.cli.options import parse, say
from midway.errors import MidwayError
from midway.paper.gather import ScoreTable, find_results, markdown, summary, tables_of

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 3
"""Maximum number of pictures per protocol, each shown for all networks."""


@dataclass(frozen=True, kw_only=True)
class _Options:
    folders: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Folders with results.json at any depth, or such files."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=("-o",))] = None
    """HTML page to write, with the pictures of the evaluations; none by default."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Gather results into tables."""
    options = parse(
        _Options,
        words,
        prog="midway report",
        about="Gather results of runs: seeds together, networks side by side.",
    )
    if options.output and options.output.suffix.lower() not in (".html", ".htm"):
        raise MidwayError(f"{options.output}: is written as HTML; give a name like report.html")
    tables = tables_of(find_results(options.folders))
    header, rows = summary(tables)
    lines = markdown(header, rows)
    for table in tables:
        lines += ["", f"{table.protocol} (version {table.version})", ""]
        lines += markdown(("network", *table.metrics), table.cells())
    if options.output:
        _write(options.output, tables)
        lines += ["", str(options.output)]
    for line in lines:
        say(line)
    return {
        "tables": [
            {key: value for key, value in asdict(table).items() if key != "examples"}
            for table in tables
        ],
        "report": str(options.output) if options.output else None,
    }


def _write(path: Path, tables: Sequence[ScoreTable]) -> None:
    from midway.analysis.report import Report  # matplotlib takes a third of a second

    report = Report("Midway results")
    report.paragraph(
        "Mean, standard deviation, range and number of runs that differ in their seed alone. "
        "Scores of different versions of a protocol are not comparable."
    )
    header, rows = summary(tables)
    report.table(header, rows)
    for table in tables:
        report.heading(table.protocol)
        report.paragraph(f"Version {table.version} of the protocol.")
        report.table(("network", *table.metrics), table.cells())
        for name in _shared_pictures(table):
            report.figure(
                partial(_side_by_side, table, name),
                f"{name}, as drawn by the evaluation of each network.",
                f"{table.protocol}, {name}: one panel for each of {', '.join(table.examples)}",
            )
    report.write(path)


def _shared_pictures(table: ScoreTable) -> list[str]:
    """Return names of pictures that all networks of a table have."""
    names = [
        {path.name for path in (folder / "pictures").glob("*.png")}
        for folder in table.examples.values()
    ]
    return sorted(set.intersection(*names))[:SHOWN] if names else []


def _side_by_side(table: ScoreTable, name: str, inches: float) -> "Figure":
    import matplotlib.image
    from matplotlib.figure import Figure

    images = {
        network: matplotlib.image.imread(folder / "pictures" / name)
        for network, folder in table.examples.items()
    }
    # One below the other: a picture of an evaluation is itself a row of panels.
    heights = [inches * image.shape[0] / image.shape[1] + 0.3 for image in images.values()]
    figure = Figure(figsize=(inches, sum(heights)), layout="constrained")
    axes = figure.subplots(len(images), squeeze=False, height_ratios=heights)[:, 0]
    for (network, image), panel in zip(images.items(), axes, strict=True):
        panel.imshow(image, cmap="gray")
        panel.set_title(network, fontsize=9)
        panel.set_axis_off()
    return figure
