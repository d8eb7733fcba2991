"""The command line: ``midway COMMAND ...``; each command is one file beside this one."""

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

from midway.config import json_text
from midway.errors import MidwayError

COMMANDS = {
    "quickstart": "make synthetic videos, train on them, and report what was learnt",
    "prepare": "make a frame store or an index of videos, or measure which is worth making",
    "train": "pretrain: midway train EXPERIMENT --data.root DIR [--field value ...]",
    "eval": "score a network: midway eval NAME --network RUN --data.root DIR",
    "info": "say what a run folder, checkpoint, file of weights or model of timm holds",
    "export": "write a network or its encoder as .safetensors, or in the release's .pth layout",
    "bench": "say what data or a training step cost here: midway bench data|step",
    "list": "name the experiments, with what each is",
    "flow": "optical flow of two images or a video: midway flow A B -o out.flo",
    "perturb": "where a patch goes, for the dynamics: midway perturb A B --point X,Y",
    "track": "follow points through a video: midway track VIDEO --point X,Y -o out.mp4",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit code is 2 for what a user can mend, told in one line.

    A command may give its own under "exit_code" in what it returns (3: a run asked to stop, which
    has a checkpoint). 130 is an interruption, 1 a reader of the output that has gone.
    """
    # Not `list(...)`: the command of that name is a module of this package.
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    try:
        try:
            return _run(words, as_json=as_json)
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1


def _run(words: Sequence[str], *, as_json: bool) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    try:
        result = _command(words[0])(words[1:])
    except MidwayError as error:
        return _failed(str(error), 2, as_json=as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _failed(what, 2, as_json=as_json)
    except KeyboardInterrupt:
        return _failed("interrupted", 130, as_json=as_json)
    if result is None:  # another process of the run tells
        return 0
    code = result.pop("exit_code", 0)
    if as_json:
        print(json_text(result))
    return code


def _failed(message: str, code: int, *, as_json: bool) -> int:
    print(f"midway: {message}", file=sys.stderr)
    if as_json:
        print(json_text({"error": message}))
    return code


def _command(name: str) -> Callable[[Sequence[str]], dict[str, Any] | None]:
    if name not in COMMANDS:
        raise MidwayError(f"no command '{name}'; there are {', '.join(COMMANDS)}")
    return importlib.import_module(f"midway.cli.{name}").main


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {what}" for name, what in COMMANDS.items()]
    return "\n".join(
        [
            "midway: learn recognition and motion from ordinary video, without labels",
            "",
            *lines,
            "",
            "midway COMMAND --help says more. Every command takes --json: its last line on",
            "standard output is then one JSON object.",
        ]
    )
