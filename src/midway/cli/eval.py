"""Command ``midway eval NAME ...``; each evaluation is a module of `midway.evals`.

An evaluation has a function `evaluate`; its arguments are the options of the command. If it has
`PROTOCOLS`, a protocol returns the configuration that the options change and `evaluate` takes;
`config_from_json` makes it resumable. `report` formats results for the terminal.
"""

from collections.abc import Sequence
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import ModuleType
from typing import Any

from midway.cli.options import description, parse, say
from midway.config import read_config
from midway.errors import MidwayError
from midway.registry import available, find

PACKAGE = "midway.evals"
USAGE = """usage: midway eval NAME [--field value ...] [--json]
       midway eval segmentation --protocol PROTOCOL --network RUN --data.root DIR [--json]
       midway eval segmentation --resume FOLDER [--json]

midway eval NAME --help lists the fields. Evaluations:"""


def main(words: Sequence[str]) -> dict[str, Any] | None:
    """Run an evaluation of a network."""
    if not words or words[0] in ("-h", "--help"):
        print(USAGE)
        for name, module in _evaluations().items():
            print(f"  {name:<20} {(module.__doc__ or '').splitlines()[0]}")
        raise SystemExit(0)
    name, *rest = words
    prog = f"midway eval {name}"
    if name not in available(PACKAGE) or not hasattr(find(PACKAGE, name), "evaluate"):
        raise MidwayError(f"eval: no evaluation '{name}'; there are {', '.join(_evaluations())}")
    module = find(PACKAGE, name)
    if hasattr(module, "PROTOCOLS"):
        config, about, rest, resume = _start(module, rest, prog)
        if not resume:
            prog += f" --protocol {config.protocol}"
        config = parse(type(config), rest, prog=prog, default=config, about=about)
        results = module.evaluate(config, resume=True) if resume else module.evaluate(config)
    else:
        results = parse(module.evaluate, rest, prog=prog, about=description(module.evaluate))
    if results is not None and hasattr(module, "report"):
        for line in module.report(results).splitlines():
            say(line)
    if results is not None and _takes_folder(module) and not _taken("--folder", rest)[0]:
        say("not saved; --folder DIR keeps the results for midway report")
    return results


def _takes_folder(module: ModuleType) -> bool:
    """Return whether an evaluation writes its results only into a `--folder`."""
    protocols = getattr(module, "PROTOCOLS", None)
    if protocols:
        return hasattr(next(iter(protocols.values()))(), "folder")
    return "folder" in signature(module.evaluate).parameters


def _start(module: ModuleType, words: list[str], prog: str) -> tuple[Any, str, list[str], bool]:
    """Return the initial configuration, its description, the remaining words, and `resume`."""
    folder, words = _taken("--resume", words)
    if folder is not None:
        if not hasattr(module, "config_from_json"):
            raise MidwayError(f"{prog}: cannot be resumed; start it again")
        path = Path(folder) / "config.json"
        config = module.config_from_json(read_config(path), where=str(path))
        return (
            replace(config, run=replace(config.run, folder=Path(folder))),
            "Continue a run.",
            words,
            True,
        )
    name, words = _taken("--protocol", words)
    if name is None and {"-h", "--help", "--help-all"} & {*words}:
        names = "\n".join(f"  {each}" for each in module.PROTOCOLS)
        print(f"usage: {prog} --protocol NAME [--field value ...] [--json]\n\nProtocols:\n{names}")
        print(f"\n{prog} --protocol NAME --help lists the fields.")
        raise SystemExit(0)
    if name not in module.PROTOCOLS:
        wrong = "no protocol" if name is None else f"no protocol '{name}'"
        raise MidwayError(
            f"{prog}: {wrong}; give --protocol and one of {', '.join(module.PROTOCOLS)}"
        )
    protocol = module.PROTOCOLS[name]
    about = description(protocol) or description(module.evaluate)
    return protocol(), about, words, False


def _taken(flag: str, words: list[str]) -> tuple[str | None, list[str]]:
    """Return the value of `--flag value` or `--flag=value`, and the words without the flag."""
    for place, word in enumerate(words):
        if word.startswith(f"{flag}="):
            return word.partition("=")[2], words[:place] + words[place + 1 :]
        if word == flag:
            if place + 1 == len(words):
                raise MidwayError(f"{flag}: has no value; give one after it")
            return words[place + 1], words[:place] + words[place + 2 :]
    return None, words


def _evaluations() -> dict[str, ModuleType]:
    modules = {name: find(PACKAGE, name) for name in available(PACKAGE)}
    return {name: module for name, module in modules.items() if hasattr(module, "evaluate")}
