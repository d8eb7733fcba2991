"""The command line: ``midway COMMAND ...``; each command is one file beside this one."""

import importlib
import io
import json
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from midway.errors import MidwayError, one_line, printable

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
    """Run a command; the exit code is 2 for an error that a user can correct, in one line.

    A command may return its own as "exit_code" (3: a run asked to stop, which has a checkpoint).
    130 is an interruption. 1 is a closed pipe behind the output, or a mistake in this package; its
    traceback is printed if the environment variable MIDWAY_TRACEBACK is set.
    """
    _print_safely()
    # Not `list(...)`: the command of that name is a module of this package.
    words = [*(sys.argv[1:] if arguments is None else arguments)]
    as_json = "--json" in words
    words = [word for word in words if word != "--json"]
    try:
        try:
            with _sigterm_as_interrupt():
                return _run(words, as_json=as_json)
        finally:
            sys.stdout.flush()
    except OSError as error:
        # Python flushes once more at its end, and would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return 1
        return _failed(one_line(error, "standard output"), 2, as_json=False)


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
    if result is None:  # another process of the run tells
        return 0
    code = result.pop("exit_code", 0)
    if as_json:
        print(json.dumps(result))
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
    print(f"midway: {printable(message)}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message}))
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
