"""Log of a run: JSON lines, TensorBoard events, and progress on stderr."""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import perf_counter
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch.utils.tensorboard import SummaryWriter

from midway.atomic import naming, write_atomically
from midway.config import json_text
from midway.errors import MidwayError, counted
from midway.progress import ProgressBar
from midway.train.objective import Progress


class Log:
    """Log of one run, written by the first rank.

    Records after the start step are dropped, because a resumed run repeats these steps. Except for
    timings, its log is the same as that of an uninterrupted run.
    """

    def __init__(
        self, folder: Path, *, start_step: int, steps: int, epochs_per_step: float
    ) -> None:
        self._path = path = folder / "metrics.jsonl"
        self._seconds_before = _keep_until(path, start_step)
        self._file = path.open("a")
        # TensorBoard hides the events of repeated steps.
        self._events = SummaryWriter(str(folder), purge_step=start_step + 1)
        # The first record is shown at once: a loss that is wrong from the start is seen early.
        self._bar = ProgressBar("step", steps, done=start_step, quiet_seconds=0.0)
        self._epochs_per_step = epochs_per_step
        self._start = perf_counter()

    def __enter__(self) -> Self:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, traceback)
        # On a full disk closing fails like the write before, whose error is the one to report.
        with suppress(OSError) if error else naming(self._path):
            self._events.close()
        with suppress(OSError) if error else naming(self._path):
            self._file.close()

    def print(self, line: str) -> None:
        """Print a line on stderr."""
        self._bar.print(line)

    def advance(self, step: int) -> None:
        """Show the number of completed steps, between two records."""
        self._bar.update(step)

    def write(self, progress: Progress, values: dict[str, float]) -> None:
        """Add one record.

        Args:
            progress: Progress after the step that was measured.
            values: Numbers by name; non-finite ones become null in the file.

        """
        seconds = perf_counter() - self._start
        # Schedules count whole steps of an epoch; the log counts the samples that were seen.
        epoch = progress.step * self._epochs_per_step
        place = {"step": progress.step, "epoch": epoch, "progress": progress.fraction}
        record: dict[str, Any] = place | values | {"seconds": self._seconds_before + seconds}
        with naming(self._path):
            self._file.write(json_text(record) + "\n")
            # A killed process loses no complete record.
            self._file.flush()
            for key, value in values.items():
                self._events.add_scalar(key, value, progress.step)
        self._bar.update(progress.step, text=_summary(values))

    def show(self, step: int, pictures: Mapping[str, NDArray[np.uint8]]) -> None:
        """Add pictures to TensorBoard: RGB bytes (height, width, 3) by name."""
        with naming(self._path):
            for name, picture in pictures.items():
                self._events.add_image(name, picture, step, dataformats="HWC")


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
        parts.append(f"{counted(int(values['skipped_steps']), 'step')} skipped")
    return "  ".join(parts)


def _keep_until(path: Path, step: int) -> float:
    """Drop the records after `step`, and return the run time in seconds at the last one kept."""
    lines = path.read_bytes().splitlines(keepends=True) if path.is_file() else []
    # A killed process may leave an incomplete last line.
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
    raise MidwayError(f"{path}: line {number} is not a record of a log; remove the line")
