"""Progress of long work on stderr: a bar on a terminal, plain lines otherwise."""

from collections.abc import Iterable, Iterator, Sized
from functools import cached_property
from time import perf_counter
from types import TracebackType
from typing import Any, ClassVar, Self, TypeVar

T = TypeVar("T")
SECONDS_UNTIL_LINE = 3.0
"""Duration of work that prints no line on a stderr that is not a terminal."""
SECONDS_OF_RATE = 60.0
"""Time over which the rate of a bar is averaged."""
SECONDS_BETWEEN_LINES = 30.0
"""Interval of the lines on a stderr that is not a terminal."""


class ProgressBar:
    """Progress of one piece of work, shown while the object is entered as a context.

    On a terminal it is a bar with the rate and the remaining time, or a moving bar without an end
    if the total is unknown. Elsewhere a line is printed now and then, and none for short work.
    A bar inside another one is shown below it and disappears at its end.

    Args:
        unit: Plural name of the items, such as "clips"; it stands before their number.
        total: Number of items; None if unknown.
        done: Number of finished items.
        quiet_seconds: Duration of work that prints no line.
        transient: Remove the bar at the end of the work.

    """

    _display: ClassVar[Any] = None
    """The display of the outermost bar, which inner bars share."""

    def __init__(
        self,
        unit: str,
        total: int | None = None,
        *,
        done: int = 0,
        quiet_seconds: float = SECONDS_UNTIL_LINE,
        transient: bool = False,
    ) -> None:
        self._unit, self._total, self._done, self._text = unit, total, done, ""
        self._first = done
        self._quiet_seconds, self._transient = quiet_seconds, transient
        self._task: Any = None
        self._is_outermost = False

    def __enter__(self) -> Self:
        self._start = perf_counter()
        self._next_line = self._start + self._quiet_seconds
        # A dumb terminal cannot move its cursor.
        if self._console.is_terminal and not self._console.is_dumb_terminal:
            if ProgressBar._display is None:
                self._is_outermost = True
                ProgressBar._display = _display(self._console, transient=self._transient)
                ProgressBar._display.start()
            self._task = ProgressBar._display.add_task(
                "", total=self._total, completed=self._done, **self._fields(None)
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._is_outermost:
            ProgressBar.stop()
        elif self._task is not None and ProgressBar._display is not None:
            ProgressBar._display.remove_task(self._task)

    @classmethod
    def stop(cls) -> None:
        """Stop all bars, because an error ends the work."""
        if cls._display is not None:
            cls._display.stop()
            cls._display = None

    def update(
        self, done: int | None = None, *, total: int | None = None, text: str | None = None
    ) -> None:
        """Show the number of finished items, a new total or a new description."""
        self._done = self._done if done is None else done
        self._total = self._total if total is None else total
        self._text = self._text if text is None else text
        display = ProgressBar._display
        if self._task is not None and display is not None:
            display.update(self._task, completed=self._done, total=self._total)
            speed = display.tasks[display.task_ids.index(self._task)].speed
            display.update(self._task, **self._fields(speed))
            return
        now = perf_counter()
        is_last = self._done == self._total and now > self._start + self._quiet_seconds
        if now >= self._next_line or is_last:
            self._next_line = now + SECONDS_BETWEEN_LINES
            self.print(self._line(now - self._start))

    def print(self, line: str) -> None:
        """Print a line on stderr, above the bar if there is one."""
        display = ProgressBar._display
        console = self._console if display is None else display.console
        console.print(line, soft_wrap=True, markup=False, highlight=False)

    @cached_property
    def _console(self) -> Any:
        from rich.console import Console  # late, because it is not needed for a help text

        return Console(stderr=True)

    def _fields(self, speed: float | None) -> dict[str, str]:
        """Return the texts of the bar, with the rate and the remaining time at a speed."""
        if self._total is None:
            return {"unit": self._unit, "rate": "", "left": "", "text": self._text}
        return {
            "unit": f"{self._unit} {self._done:,}/{self._total:,}",
            "rate": _rate(speed) if speed else "",
            "left": f"{_clock((self._total - self._done) / speed)} left" if speed else "",
            "text": self._text,
        }

    def _line(self, seconds: float) -> str:
        done = self._done - self._first
        speed = done / seconds if done and self._done != self._total else None
        return "  ".join(filter(None, self._fields(speed).values()))


def progress(items: Iterable[T], unit: str, total: int | None = None) -> Iterator[T]:
    """Yield the items, and show the progress on stderr.

    Args:
        items: Items of the work.
        unit: Plural name of the items.
        total: Number of items; by default the length of `items`, if it has one.

    """
    if total is None and isinstance(items, Sized):
        total = len(items)
    with ProgressBar(unit, total) as bar:
        for done, item in enumerate(items, 1):
            yield item
            bar.update(done)


def _display(console: Any, transient: bool) -> Any:
    from rich.progress import BarColumn, Progress, TextColumn

    names = ("unit", "bar", "rate", "left", "text")
    columns = {name: TextColumn(f"{{task.fields[{name}]}}", markup=False) for name in names}
    return Progress(
        *(columns | {"bar": BarColumn()}).values(),
        console=console,
        transient=transient,
        speed_estimate_period=SECONDS_OF_RATE,
    )


def _rate(speed: float) -> str:
    return f"{speed:.3g}/s" if speed >= 1 else f"{1 / speed:.3g} s each"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
