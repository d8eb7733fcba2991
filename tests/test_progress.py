"""Progress on stderr: lines now and then, or a bar on a terminal."""

import pytest

from midway import progress as module
from midway.progress import ProgressBar, progress


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Time in seconds, in a list of one number that a test sets."""
    now = [0.0]
    monkeypatch.setattr(module, "perf_counter", lambda: now[0])
    return now


@pytest.fixture
def _terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")


def test_short_work_prints_nothing(capsys, clock):
    for _ in progress(range(5), "videos"):
        clock[0] += 0.5
    assert capsys.readouterr() == ("", "")


def test_long_work_prints_a_line_now_and_then_with_rate_and_time_left(capsys, clock):
    for _ in progress(range(100), "videos"):
        clock[0] += 1.0
    lines = capsys.readouterr().err.splitlines()
    assert lines[:2] == ["videos 3/100  1/s  1:37 left", "videos 33/100  1/s  1:07 left"]
    assert lines[-1] == "videos 100/100"
    assert len(lines) == 5


def test_slow_work_shows_the_seconds_of_an_item(capsys, clock):
    for _ in progress(iter(range(3)), "networks", 3):
        clock[0] += 1000.0
    assert capsys.readouterr().err.splitlines() == [
        "networks 1/3  1e+03 s each  33:20 left",
        "networks 2/3  1e+03 s each  16:40 left",
        "networks 3/3",
    ]


def test_work_of_unknown_length_shows_its_description(capsys, clock):
    with ProgressBar("step") as bar:
        bar.update(text="measuring the peak")
        clock[0] = 4.0
        bar.update(text="measuring the parts")
    assert capsys.readouterr().err == "step  measuring the parts\n"


def test_resumed_work_counts_its_own_items_only(capsys, clock):
    with ProgressBar("step", 100, done=90, quiet_seconds=0.0) as bar:
        clock[0] = 2.0
        bar.update(92, text="loss 0.1")
    assert capsys.readouterr().err == "step 92/100  1/s  0:08 left  loss 0.1\n"


@pytest.mark.usefixtures("_terminal")
def test_a_terminal_shows_a_bar_and_an_inner_one_with_it(capsys):
    for _ in progress(range(2), "videos"):
        for _ in progress(range(3), "frames"):
            pass
    shown = capsys.readouterr().err
    assert "videos 0/2" in shown or "videos 1/2" in shown
    assert "videos 2/2" in shown
    assert "━" in shown


@pytest.mark.usefixtures("_terminal")
def test_an_error_inside_leaves_no_bar_behind(capsys):
    bars = progress(range(2), "videos")
    next(bars)
    ProgressBar.stop()
    capsys.readouterr()
    assert next(bars) == 1
    bars.close()
    with ProgressBar("clips", 3) as bar:
        bar.update(3)
    assert "clips 3/3" in capsys.readouterr().err


def test_a_line_may_come_before_the_work_begins(capsys):
    ProgressBar("step", 3).print("a warning")
    assert capsys.readouterr().err == "a warning\n"
