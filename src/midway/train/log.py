"""What a run tells while it runs: JSON lines, TensorBoard events, and a line or bar on stderr."""

import json
from math import isfinite
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch.utils.tensorboard import SummaryWriter

from midway.atomic import write_atomically
from midway.errors import MidwayError
from midway.train.objective import Position

SECONDS_BETWEEN_LINES = 30.0


class Log:
    """The log of one run, kept by the first rank.

    Numbers from before the start step are kept and those of later, lost steps are dropped, so
    that the log of a resumed run is that of an uninterrupted one but for its timings.
    """

    def __init__(self, folder: Path, *, start_step: int, steps: int) -> None:
        path = folder / "metrics.jsonl"
        self._seconds_before = _keep_until(path, start_step)
        self._file = path.open("a")
        self._events = SummaryWriter(str(folder), purge_step=start_step + 1)
        console = Console(stderr=True)
        self._bar = _bar(console) if console.is_terminal else None
        if self._bar:
            self._task = self._bar.add_task("", total=steps, completed=start_step)
        self._console = console
        self._steps = steps
        self._start = perf_counter()
        self._last_line = -SECONDS_BETWEEN_LINES

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()
        self._events.close()
        self._file.close()

    def tell(self, sentence: str) -> None:
        """Print a line."""
        self._console.print(sentence, soft_wrap=True)

    def write(self, position: Position, values: dict[str, float]) -> None:
        """Add one record.

        Args:
            position: After the step that the numbers belong to.
            values: Names and numbers; a number that is not finite becomes null in the file.

        """
        seconds = perf_counter() - self._start
        place = {"step": position.step, "epoch": position.epoch, "progress": position.progress}
        record: dict[str, Any] = place | values | {"seconds": self._seconds_before + seconds}
        finite = {key: value if isfinite(value) else None for key, value in record.items()}
        self._file.write(json.dumps(finite) + "\n")
        self._file.flush()
        for key, value in values.items():
            self._events.add_scalar(key, value, position.step)
        summary = _summary(values)
        if self._bar:
            self._bar.update(self._task, completed=position.step, description=summary)
        elif seconds - self._last_line >= SECONDS_BETWEEN_LINES or position.step == self._steps:
            self._last_line = seconds
            self._console.print(f"step {position.step}/{self._steps}  {summary}", soft_wrap=True)


def _summary(values: dict[str, float]) -> str:
    parts = [
        f"loss {values['loss']:.4f}",
        f"{values['samples_per_second']:.1f} samples/s",
        f"data wait {values['data_wait_share']:.0%}",
    ]
    if "communication_wait_share" in values:
        parts.append(f"communication wait {values['communication_wait_share']:.0%}")
    if "tflops_per_second" in values:
        parts.append(f"{values['tflops_per_second']:.3g} TFLOP/s")
    if "mfu" in values:
        parts.append(f"MFU {values['mfu']:.0%}")
    if values["skipped_steps"]:
        parts.append(f"{values['skipped_steps']:.0f} steps skipped")
    return "  ".join(parts)


def _bar(console: Console) -> Progress:
    return Progress(
        MofNCompleteColumn(),
        BarColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.description}"),
        console=console,
    )


def _keep_until(path: Path, step: int) -> float:
    """Drop the records after `step`; seconds that the run had taken by the last one kept."""
    lines = path.read_bytes().splitlines(keepends=True) if path.exists() else []
    # A killed process may leave half a line at the end.
    whole = [line for line in lines if line.endswith(b"\n")]
    records = [(line, _record(path, number, line)) for number, line in enumerate(whole, 1)]
    kept = [(line, record) for line, record in records if record["step"] <= step]
    write_atomically(path, lambda file: file.writelines(line for line, _ in kept))
    return kept[-1][1]["seconds"] if kept else 0.0


def _record(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line)
    except ValueError:
        record = None
    numbers = ("step", "seconds")
    if isinstance(record, dict) and all(isinstance(record.get(n), int | float) for n in numbers):
        return record
    raise MidwayError(f"{path}: line {number} is no record of a log; remove the line")
