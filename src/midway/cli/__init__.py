"""Command line ``midway COMMAND ...``; each command is a module of this package."""

import difflib
import importlib
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from midway.config import json_text
from midway.cores import free_cores
from midway.errors import MidwayError, one_line, printable
from midway.progress import ProgressBar

COMMANDS = {
    "quickstart": "train a small network on synthetic videos and write a report",
    "worlds": "write synthetic videos of moving photographs: midway worlds OUT [--photos DIR]",
    "prepare": "write a frame store or an index of videos, or recommend one (--measure)",
    "train": "pretrain: midway train EXPERIMENT --data.root DIR [--field value ...]",
    "eval": "evaluate a network: midway eval NAME --network RUN --data.root DIR",
    "info": "describe a run folder, checkpoint, weights file or timm model",
    "export": "write a network or a part of it as .onnx, .pt2, .safetensors or release .pth",
    "share": "upload weights and a model card to the Hugging Face hub",
    "bench": "measure data loading or a training step: midway bench data|step",
    "list": "list names: midway list [experiments|methods|networks]",
    "paper": "plan, make or print a table of the paper: midway paper table1 --plan",
    "report": "gather results of several runs into one table: midway report RUNS... -o page.html",
    "flow": "compute optical flow of two images or a video: midway flow A B -o out.flo",
    "segment": "write masks of images or a video: midway segment IMAGES --network READOUT -o DIR",
    "perturb": "show where the dynamics move a patch: midway perturb A B --point X,Y",
    "track": "follow points through a video: midway track VIDEO --point X,Y -o out.mp4",
    "demo": "serve a page to click on: midway demo [VIDEO ...] [--network NETWORK] [--out DIR]",
}


COMPUTING = ("quickstart", "flow", "perturb", "segment", "track", "demo")
"""Commands that use no more threads than there are free cores when they start. A run that can be
resumed does not: its numbers may depend on the number of threads."""
PASSIVE = {"OMP_WAIT_POLICY": "PASSIVE", "KMP_BLOCKTIME": "0"}
"""Settings with which waiting threads sleep, of GNU's and of Intel's and LLVM's OpenMP."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code.

    Args:
        arguments: Words after ``midway``; those of the process by default.

    Returns:
        0 for success; 2 after a one-line message about an error that the user can correct; 130
        after Ctrl-C or SIGTERM; 1 if the reader of the output has closed its pipe, or for a mistake
        in this package, whose traceback is printed if the environment variable MIDWAY_TRACEBACK is
        set; or the "exit_code" in the command's result (3: interrupted, can be resumed).

    """
    _print_safely()
    # Not `list(...)`: the command of that name is a module of this package.
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    _wait_passively()
    try:
        try:
            with _sigterm_as_interrupt():
                return _run(words, as_json=as_json)
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Python flushes stdout again at exit, which would print a second error.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 1
        return _failed(one_line(error, "standard output"), 2, as_json=False)


def _wait_passively() -> None:
    """Let OpenMP's threads sleep while they wait, unless the environment says otherwise.

    By default they spin, which on a shared machine takes the core from the thread that they wait
    for (docs/PERFORMANCE.md).
    """
    # OpenMP reads the variables once, when torch is imported.
    if "torch" not in sys.modules and not {*PASSIVE, "GOMP_SPINCOUNT"} & {*os.environ}:
        os.environ.update(PASSIVE)


def _run(words: Sequence[str], *, as_json: bool) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_help())
        return 0
    if words[0] == "--version":
        print(f"midway {version('midway-network')}, torch {version('torch')}")
        return 0
    try:
        command = _command(words[0])
        if words[0] in COMPUTING and not {"-h", "--help"} & {*words}:
            from midway.nn.device import limit_threads

            limit_threads(free_cores())
        result = command(words[1:])
    except MidwayError as error:
        return _failed(str(error), 2, as_json=as_json)
    except BrokenPipeError:
        raise
    except OSError as error:
        return _failed(one_line(error), 2, as_json=as_json)
    except KeyboardInterrupt:
        return _failed("interrupted", 130, as_json=as_json)
    except Exception as error:
        if os.environ.get("MIDWAY_TRACEBACK"):
            raise
        if _is_out_of_memory(error):
            what = (
                f"{words[0]}: not enough memory ({one_line(error)}); give smaller batches or sizes"
            )
            return _failed(what, 2, as_json=as_json)
        what = f"{words[0]}: failed unexpectedly with {type(error).__name__} ({one_line(error)})"
        return _failed(
            f"{what}; report it with the traceback of MIDWAY_TRACEBACK=1", 1, as_json=as_json
        )
    if result is None:  # only the first process of a run prints results
        return 0
    code = result.pop("exit_code", 0)
    if as_json:
        print(json_text(result))
    return code


@contextmanager
def _sigterm_as_interrupt() -> Iterator[None]:
    """Let SIGTERM end a command as Ctrl-C does, so that it leaves no unfinished file."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if current_thread() is not main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _is_out_of_memory(error: Exception) -> bool:
    # By name and text, because importing torch takes seconds.
    is_of_gpu = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or is_of_gpu or "can't allocate memory" in str(error)


def _print_safely() -> None:
    """Escape what the encoding of the terminal lacks, and let each warning be one line."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    log = logging.getLogger("midway")
    if not log.handlers:
        log.addHandler(_OneLine(logging.WARNING))


class _OneLine(logging.Handler):
    """Handler that prints each message as one line on the current standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        print(printable(record.getMessage()), file=sys.stderr)


def _failed(message: str, code: int, *, as_json: bool) -> int:
    ProgressBar.stop()
    print(f"midway: {printable(message)}", file=sys.stderr)
    if as_json:
        print(json_text({"error": message}))
    return code


def _command(name: str) -> Callable[[Sequence[str]], dict[str, Any] | None]:
    if name not in COMMANDS:
        near = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise MidwayError(f"no command '{name}'; {hint}there are {', '.join(COMMANDS)}")
    # Importing torch takes seconds on a busy machine; a terminal shows that something happens.
    with ProgressBar(f"starting {name}", transient=True) if sys.stderr.isatty() else nullcontext():
        return importlib.import_module(f"midway.cli.{name}").main


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [f"  {name:<{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            "midway: self-supervised learning of recognition and motion from unlabelled video",
            "",
            *lines,
            "",
            "midway COMMAND --help describes a command. With --json, the last line of standard",
            "output is a JSON object.",
        ]
    )
