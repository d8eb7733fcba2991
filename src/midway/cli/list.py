"""Command ``midway list [experiments|methods|networks]``: list names that commands take."""

from collections.abc import Mapping, Sequence
from itertools import zip_longest
from typing import Annotated, Any, Literal

import tyro

from midway.cli.options import parse
from midway.experiments.base import experiments
from midway.methods.base import About
from midway.models.weights.files import BUNDLED
from midway.models.weights.layouts.published import PUBLISHED
from midway.registry import available, find

PACKAGE = "midway.methods"

COUNTING = """
Costs are those of the default configuration: multiply-adds of the forward passes of student, EMA
teacher and flow network. Table 9 also counts tokens that nothing reads, and no projection heads
among the parameters; `midway paper table9` counts as it does."""

Kind = Literal["experiments", "methods", "networks"]


def main(words: Sequence[str]) -> dict[str, Any]:
    """Print names with a one-line description of each."""
    return parse(list_names, words, prog="midway list")


def list_names(kind: Annotated[Kind, tyro.conf.Positional] = "experiments") -> dict[str, Any]:
    """List the experiments, the methods, or the networks that `--network` takes by name.

    Args:
        kind: Names to list.

    """
    lines = _LISTS[kind]()
    width = max(map(len, lines))
    for name, text in lines.items():
        for title, line in zip_longest([name], text.splitlines(), fillvalue=""):
            print(f"{title:<{width}}  {line}")
    if kind == "methods":
        print(COUNTING)
    return {kind: lines}


def _experiments() -> Mapping[str, str]:
    return {
        name: (function.__doc__ or "").strip().splitlines()[0]
        for name, function in experiments().items()
    }


def _methods() -> Mapping[str, str]:
    return {name: _described(find(PACKAGE, name).METHOD.about) for name in available(PACKAGE)}


def _described(about: About | None) -> str:
    """Return paper, sizes, costs and licences of a method, in four lines, if it states them."""
    if about is None:
        return "its file states no paper and no costs"
    in_paper = about.paper_giga_multiply_adds
    beside = "not in table 9" if in_paper is None else f"table 9: {in_paper:.1f}"
    return (
        f"{about.paper}\n"
        f"parameters: {about.encoder_megaparameters:.1f} M in the encoder, "
        f"{about.other_megaparameters:.1f} M in heads, decoders and dynamics\n"
        f"a sample: {about.sample}, {about.giga_multiply_adds:.1f} G multiply-adds ({beside}), "
        f"{about.activation_megabytes:,.0f} MB in float32\n"
        f"code {about.code_licence}; weights {about.weights_licence}; "
        f"opens {about.weights or 'no published weights'}"
    )


def _networks() -> Mapping[str, str]:
    bundled = {path.stem: "part of the package" for path in sorted(BUNDLED.glob("*.safetensors"))}
    published = {name: f"{network.about}; {network.terms}" for name, network in PUBLISHED.items()}
    return bundled | published


_LISTS = {"experiments": _experiments, "methods": _methods, "networks": _networks}
