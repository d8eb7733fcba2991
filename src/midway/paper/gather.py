"""Results of several runs, gathered from their ``results.json``: one row for all seeds of a run.

Runs that differ in seed, folder and place of the data alone are one group, with mean, standard
deviation (of a sample), range and number. Numbers of one protocol with different versions are not
comparable and stay apart.
"""

import json
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from midway.config import read_json
from midway.errors import MidwayError

NOT_COMPARED = (("run", "folder"), ("run", "seed"), ("data", "root"))
"""Fields of a pretraining that do not tell two groups apart."""
SCORES = ("miou", "accuracy", "epe", "jf", "j", "f", "rmse", "abs_rel", "delta1")
"""Keys of scores at the top of a file; its other numbers are settings."""
NOT_RUN = "not run"


@dataclass(frozen=True, kw_only=True)
class Result:
    """Contents of one ``results.json``."""

    path: Path
    protocol: str
    version: str
    network: str
    """Evaluated network: path, name, or method without weights."""
    group: str
    """Text that runs of different seeds share."""
    metrics: dict[str, float]


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A metric of a group: mean, standard deviation, range and number of runs."""

    values: tuple[float, ...]

    def __str__(self) -> str:
        mean, n = f"{fmean(self.values):.2f}", len(self.values)
        if n == 1:
            return f"{mean} (n 1)"
        ends = f"{min(self.values):.2f} to {max(self.values):.2f}"
        return f"{mean} ± {stdev(self.values):.2f} ({ends}, n {n})"


@dataclass(frozen=True, kw_only=True)
class ScoreTable:
    """Scores by one version of a protocol."""

    protocol: str
    version: str
    metrics: tuple[str, ...]
    rows: dict[str, dict[str, Cell]]
    """Cells by name of the group and metric; a metric that a group lacks is left out."""
    examples: dict[str, Path]
    """Folder of one result of each group."""

    def cells(self) -> list[tuple[str, ...]]:
        """Return the rows as text, the group first."""
        return [
            (name, *(str(row.get(metric, NOT_RUN)) for metric in self.metrics))
            for name, row in self.rows.items()
        ]


def find_results(paths: Iterable[Path]) -> list[Result]:
    """Read all results at or below some paths.

    Raises:
        MidwayError: A path has no results, or a file is damaged.

    """
    found: dict[Path, Result] = {}
    for path in paths:
        files = [path] if path.is_file() else sorted(path.rglob("results.json"))
        if not files:
            raise MidwayError(
                f"{path}: no results.json at or below it; give folders that midway eval wrote"
            )
        found |= {file.resolve(): _read(file) for file in files}
    return list(found.values())


def _read(path: Path) -> Result:
    values = read_json(path)
    try:
        protocol, source = values["protocol"], _source(values, path.parent)
        network = str(source.get("network") or source.get("method") or "unknown")
        return Result(
            path=path,
            protocol=str(protocol["name"]),
            version=str(protocol["version"]),
            network=network,
            group=json.dumps([_pretraining(network), _without_network(source)], sort_keys=True),
            metrics=_metrics(values),
        )
    # Of a value of another type than an evaluation writes.
    except (KeyError, TypeError, AttributeError, ValueError, OverflowError):
        raise MidwayError(f"{path}: is not a result of midway eval; leave it out") from None


def _source(values: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return what was evaluated: network and how it was read."""
    for key in ("encoder", "network"):
        if isinstance(values.get(key), Mapping):
            return dict(values[key])
    if "run" in values:  # a flow finetuning
        return dict(read_json(folder / "config.json")["start"])
    return {key: values.get(key) for key in ("network", "method", "level")}


def _without_network(source: Mapping[str, Any]) -> dict[str, Any]:
    hidden = ("network", "weights_sha256", "accelerator", "weights_seed")
    return {key: value for key, value in source.items() if key not in hidden}


def _pretraining(network: str) -> Any:
    """Return the configuration of a run without its seed, or the name of another network."""
    path = Path(network) / "config.json"
    if not path.is_file():
        return network
    config = read_json(path)
    for part, field in NOT_COMPARED:
        if isinstance(config.get(part), dict):
            config[part].pop(field, None)
    return config


def _metrics(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores of a result, those of its renderings, further tests, tracks and levels."""
    parts: dict[str, Mapping[str, Any]] = {"": {key: values.get(key) for key in SCORES}}
    if len(values.get("renderings") or {}) > 1:
        parts["epe "] = values["renderings"]
    parts |= {f"{name} ": {"epe": t["epe"]} for name, t in (values.get("tests") or {}).items()}
    parts["tracked "] = values.get("tracked") or {}
    parts |= {f"level {level} ": each for level, each in (values.get("levels") or {}).items()}
    return {name: v for prefix, scores in parts.items() for name, v in _numbers(scores, prefix)}


def _numbers(scores: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, float]]:
    """Yield the numbers of scores, those of inner groups too."""
    for key, value in scores.items():
        if isinstance(value, Mapping):
            yield from _numbers(value, f"{prefix}{key} ")
        elif isinstance(value, int | float):
            yield f"{prefix}{key}", float(value)


def tables_of(results: Sequence[Result]) -> list[ScoreTable]:
    """Return one table for each version of a protocol, in the order of the results."""
    names = _names(results)
    by_protocol: defaultdict[tuple[str, str], list[Result]] = defaultdict(list)
    for result in results:
        by_protocol[result.protocol, result.version].append(result)
    return [_table(*key, each, names) for key, each in by_protocol.items()]


def _table(
    protocol: str, version: str, results: Sequence[Result], names: Mapping[str, str]
) -> ScoreTable:
    values: defaultdict[str, defaultdict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for result in results:
        for metric, value in result.metrics.items():
            values[names[result.group]][metric].append(value)
    return ScoreTable(
        protocol=protocol,
        version=version,
        metrics=tuple(dict.fromkeys(metric for row in values.values() for metric in row)),
        rows={
            name: {metric: Cell(values=tuple(found)) for metric, found in row.items()}
            for name, row in values.items()
        },
        examples={names[each.group]: each.path.parent for each in reversed(results)},
    )


def _names(results: Sequence[Result]) -> dict[str, str]:
    """Return a name for each group: its first network, with what distinguishes equal ones."""
    first: dict[str, Result] = {}
    for result in results:
        first.setdefault(result.group, result)
    names: dict[str, str] = {}
    for group, result in first.items():
        name, source = result.network, json.loads(group)[1]
        details = [
            str(source[key]) for key in ("weights", "features", "keep") if source.get(key)
        ] + (["untrained"] if source.get("untrained") else [])
        same = [other for other in first.values() if other.network == name]
        full = f"{name} ({', '.join(details)})" if len(same) > 1 and details else name
        names[group] = full if full not in names.values() else f"{full} #{len(names) + 1}"
    return names


def summary(tables: Sequence[ScoreTable]) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """Return header and rows of the first metric of all tables; missing ones are `NOT_RUN`."""
    tables = [each for each in tables if each.metrics]
    header = ("network", *(f"{each.protocol}: {each.metrics[0]}" for each in tables))
    names = dict.fromkeys(name for each in tables for name in each.rows)
    rows = [
        (name, *(str(each.rows.get(name, {}).get(each.metrics[0], NOT_RUN)) for each in tables))
        for name in names
    ]
    return header, rows


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines of a table in Markdown; the columns of numbers are right-aligned."""
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return [f"| {' | '.join(line)} |" for line in lines]
