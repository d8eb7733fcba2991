"""Shell commands of README and guides can be pasted: commands, options and scripts exist.

Each block runs in bash with stubs that note their words; the words of `midway` are then parsed by
the command's own parser. `tests/test_guides.py` runs the Python blocks.
"""

import importlib
import os
import re
import subprocess
from dataclasses import MISSING
from functools import cache
from pathlib import Path
from typing import Any, NoReturn

import pytest

from midway.cli import COMMANDS, options, train
from midway.experiments.camvid import midway_tiny

ROOT = Path(__file__).parents[2]
PAGES = [
    "README.md",
    "CONTRIBUTING.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")),
]
STUB = """#!/bin/sh
{ printf '%s\\037' "${0##*/}" "$@"; printf '\\036'; } >> "$COMMANDS"
"""
"""Stands for a program, and notes its words."""
STUBBED = ("midway", "python", "torchrun", "pip", "make", "tensorboard", "hf")


class ParsedError(Exception):
    """The options of a command are right."""


def blocks(page: str, language: str) -> list[str]:
    text = (ROOT / page).read_text()
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def only_parse(
    kind: Any, words: list[str], *, prog: str, default: Any = None, **_: Any
) -> NoReturn:
    if isinstance(kind, type):
        options._parsed(kind, words, prog, default)
    else:
        options._parsed(options._deferred(kind), words, prog, MISSING)
    raise ParsedError


@cache
def parsed(words: tuple[str, ...]) -> None:
    """Parse the words after `midway`; commands that stand on several pages are parsed once."""
    name, *rest = words
    if name == "--version":
        return
    assert name in COMMANDS
    module = importlib.import_module(f"midway.cli.{name}")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(module, "parse", only_parse)
        # The run of an example does not exist; its options are those of any experiment.
        patched.setattr(train, "_resumed", lambda folder: midway_tiny())
        if rest[:2] == ["segmentation", "--resume"]:
            assert len(rest) == 3  # the folder has all options
            return
        with pytest.raises(ParsedError):
            module.main(rest)


def noted(block: str, folder: Path) -> list[list[str]]:
    """Run a block with stubs, and return the words of each command."""
    for name in STUBBED:
        stub = folder / name
        stub.write_text(STUB)
        stub.chmod(0o755)
    notes = folder / "commands"
    environment = {"PATH": f"{folder}:{os.environ['PATH']}", "COMMANDS": str(notes)}
    subprocess.run(["bash", "-euc", block], check=True, env=environment, cwd=folder)
    return [line.split("\x1f")[:-1] for line in notes.read_text().split("\x1e")[:-1]]


@pytest.mark.parametrize("page", PAGES)
def test_commands_parse(page: str, tmp_path: Path) -> None:
    for number, block in enumerate(blocks(page, "bash")):
        (folder := tmp_path / str(number)).mkdir()
        commands = noted(block, folder)
        assert commands
        for program, *words in commands:
            if program == "midway":
                parsed(tuple(words))
            elif program == "torchrun":
                parsed(tuple(words[words.index("midway.cli") + 1 :]))
            elif program == "python" and words[0] != "-m":
                source = (ROOT / words[0]).read_text()
                assert all(f'"{word}"' in source for word in words if word.startswith("--"))
            elif program == "make":
                assert re.search(rf"^{words[0]}:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_runs_of_the_results_have_folders_of_their_own(tmp_path: Path) -> None:
    for number, block in enumerate(blocks("docs/RESULTS.md", "bash")):
        (folder := tmp_path / str(number)).mkdir()
        commands = [words[1:] for words in noted(block, folder) if words[0] == "midway"]
        # A run refuses the folder of another one.
        runs = [words for words in commands if words[0] == "train" or "--protocol" in words]
        folders = [words[words.index("--run.folder") + 1] for words in runs]
        assert len({*folders}) == len(folders)


@pytest.mark.parametrize("page", PAGES)
def test_code_stands_in_fences_that_name_their_language(page: str) -> None:
    text = (ROOT / page).read_text()
    fences = re.findall(r"^```(\w*)$", text, flags=re.MULTILINE)
    assert len(fences) % 2 == 0
    assert {*fences[0::2]} <= {"bash", "python", "text", "json", "html", "console"} | {""}
    outside = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    commands = re.findall(r"^    +((?:midway|python|torchrun|pip) .*)", outside, re.MULTILINE)
    assert not commands
