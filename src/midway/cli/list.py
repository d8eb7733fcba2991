"""Command ``midway list``: list the experiments."""

from collections.abc import Sequence
from typing import Any

from midway.cli.options import parse
from midway.experiments.base import experiments


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print every experiment with the first line of its docstring."""
    return parse(list_experiments, words, prog="midway list")


def list_experiments() -> dict[str, Any]:
    """List the experiments with the first line of each description."""
    lines = {
        name: (function.__doc__ or "").strip().splitlines()[0]
        for name, function in experiments().items()
    }
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")
    return {"experiments": lines}
