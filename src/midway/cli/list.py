"""Command ``midway list [experiments|networks]``: list the names that commands take."""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import tyro

from midway.cli.options import parse
from midway.experiments.base import experiments
from midway.models.weights.files import BUNDLED
from midway.models.weights.hub import PUBLISHED

Kind = Literal["experiments", "networks"]


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print names with a one-line description of each."""
    return parse(list_names, words, prog="midway list")


def list_names(kind: Annotated[Kind, tyro.conf.Positional] = "experiments") -> dict[str, Any]:
    """List the experiments, or the networks that `--network` takes by name.

    Args:
        kind: Names to list.

    """
    lines = _experiments() if kind == "experiments" else _networks()
    width = max(map(len, lines))
    for name, line in lines.items():
        print(f"{name:<{width}}  {line}")
    return {kind: lines}


def _experiments() -> Mapping[str, str]:
    return {
        name: (function.__doc__ or "").strip().splitlines()[0]
        for name, function in experiments().items()
    }


def _networks() -> Mapping[str, str]:
    bundled = {path.stem: "part of the package" for path in sorted(BUNDLED.glob("*.safetensors"))}
    published = {
        name: f"{network.about}; {network.repo} on the hub" for name, network in PUBLISHED.items()
    }
    return bundled | published
