"""Commands and snippets of docs/RESULTS.md can be pasted: names, options and imports exist."""

import ast
import importlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, NoReturn

import pytest

from midway.cli import options

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "docs/RESULTS.md"
STUB = f"""#!{sys.executable}
import json, os, sys
with open(os.environ["COMMANDS"], "a") as file:
    file.write(json.dumps([os.path.basename(sys.argv[0]), *sys.argv[1:]]) + "\\n")
"""
"""Stands for `midway` and `python`, and notes its words."""


class ParsedError(Exception):
    """The options of a command are right."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", RESULTS.read_text(), flags=re.DOTALL)


def only_parse(
    kind: Any, words: list[str], *, prog: str, default: Any = None, **_: Any
) -> NoReturn:
    if isinstance(kind, type):
        options._parsed(kind, words, prog, default)
    else:
        options._parsed(options._deferred(kind), words, prog, options.MISSING)
    raise ParsedError


@pytest.mark.parametrize("block", blocks("bash"))
def test_commands_parse(block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("midway", "python"):
        stub = tmp_path / name
        stub.write_text(STUB)
        stub.chmod(0o755)
    noted = tmp_path / "commands"
    environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "COMMANDS": str(noted)}
    subprocess.run(["bash", "-euc", block], check=True, env=environment, cwd=tmp_path)
    noted_words = [json.loads(line) for line in noted.read_text().splitlines()]
    assert noted_words
    for _, script, *words in [words for words in noted_words if words[0] == "python"]:
        source = (ROOT / script).read_text()
        assert all(f'"{word}"' in source for word in words if word.startswith("--"))
    commands = [words[1:] for words in noted_words if words[0] == "midway"]
    for name, *words in commands:
        module = importlib.import_module(f"midway.cli.{name}")
        monkeypatch.setattr(module, "parse", only_parse)
        with pytest.raises(ParsedError):
            module.main(words)
    # A run refuses the folder of another one.
    folders = [words[words.index("--run.folder") + 1] for words in commands if words[0] == "train"]
    folders += [w[w.index("--run.folder") + 1] for w in commands if "--protocol" in w]
    assert len({*folders}) == len(folders)


@pytest.mark.parametrize("block", blocks("python"))
def test_snippets_import_what_exists(block: str) -> None:
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module:
            module = importlib.import_module(node.module)
            assert all(hasattr(module, alias.name) for alias in node.names)
