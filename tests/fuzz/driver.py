"""Driver of a child that reads mutants: a crash or hang is attributed to its input."""

import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from tests.fuzz.child import INPUT_SECONDS

CHILD = ("-m", "tests.fuzz.child")
ROOT = Path(__file__).parents[2]
MAX_MB = 2000
"""Largest memory that an input may take."""
SOUND = ("read", "refused")
"""Outcomes that an input may have: a result, or an error of one line."""
Input = tuple[str, int, int]
"""Family, number and seed of a mutant."""


def is_bad(outcome: dict[str, Any]) -> bool:
    """Return whether an input ended otherwise than in a result or one line, or took much memory."""
    return outcome["outcome"] not in SOUND or outcome["mb"] > MAX_MB


def run(inputs: Sequence[Input], seeds: Path) -> Iterator[dict[str, Any]]:
    """Yield the outcome of each input; a new child takes over after one that crashed."""
    place = 0
    while place < len(inputs):
        for outcome in _run_child(inputs[place:], seeds):
            place += 1
            yield outcome


def _run_child(inputs: Sequence[Input], seeds: Path) -> Iterator[dict[str, Any]]:
    """Yield outcomes up to the last input, or to one that ends the child."""
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryFile("w+") as errors:
        command = [sys.executable, *CHILD, str(seeds), scratch]
        lines: SimpleQueue[str] = SimpleQueue()
        with subprocess.Popen(
            command,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as child:
            works = [
                threading.Thread(target=work, args=(child, inputs, lines))
                for work in (_feed, _collect)
            ]
            for work in works:
                work.start()
            try:
                for family, number, seed in inputs:
                    outcome = _answer(lines)
                    if outcome is None:
                        child.kill()
                        errors.seek(0)
                        place = {"family": family, "number": number, "seed": seed}
                        text = f"rc {child.wait()}: {errors.read()[-1500:]}"
                        yield place | {"outcome": "crash", "text": text, "seconds": 0, "mb": 0}
                        return
                    yield outcome
            finally:
                child.kill()
                for work in works:
                    work.join()


def _feed(child: "subprocess.Popen[str]", inputs: Sequence[Input], _: "SimpleQueue[str]") -> None:
    assert child.stdin is not None
    try:
        with child.stdin:
            for each in inputs:
                child.stdin.write(" ".join(map(str, each)) + "\n")
    except OSError:  # the child has ended
        return


def _collect(child: "subprocess.Popen[str]", _: Sequence[Input], lines: "SimpleQueue[str]") -> None:
    assert child.stdout is not None
    for line in child.stdout:
        lines.put(line)
    lines.put("")


def _answer(lines: "SimpleQueue[str]") -> dict[str, Any] | None:
    """Return the next outcome; None if the child has ended, or has hung where no signal helps."""
    while True:
        try:
            # The imports of the first input take a while too.
            line = lines.get(timeout=60 + 2 * INPUT_SECONDS)
        except Empty:
            return None
        if not line:
            return None
        # Native libraries may print lines of their own.
        if line.startswith("{") and "outcome" in (answer := json.loads(line)):
            return answer
