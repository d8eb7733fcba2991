"""Tasks done in processes: in order, once each, whatever becomes of the processes."""

import ctypes
import gc
import multiprocessing
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from threading import Thread
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from midway.data.workers import pool as workers_module
from midway.data.workers.pool import Reading, Workers
from midway.errors import MidwayError

_STATM = Path("/proc/self/statm")


def double(task: int, reading: Reading) -> tuple[int, int]:
    reading(f"clip{task}")
    time.sleep(0.01 * (task % 3))
    return 2 * task, os.getpid()


@pytest.mark.parametrize("num_workers", [0, 1, 2])
def test_results_come_in_the_order_of_the_tasks(num_workers):
    with closing(Workers(double, num_workers=num_workers, timeout_seconds=60)) as workers:
        results = list(workers.map(range(12)))
        again = list(workers.map(range(3)))
    assert [number for number, _ in results] == list(range(0, 24, 2))
    assert [number for number, _ in again] == [0, 2, 4]
    processes = {process for _, process in results}
    assert len(processes) == max(num_workers, 1)
    assert (os.getpid() in processes) == (num_workers == 0)


def test_tasks_are_taken_only_as_they_are_needed():
    taken = []

    def tasks() -> Iterator[int]:
        for task in range(100):
            taken.append(task)
            yield task

    with closing(Workers(double, num_workers=1, timeout_seconds=60)) as workers:
        results = workers.map(tasks())
        next(results)
        next(results)
        assert len(taken) <= 2 + workers_module.SLOTS


def slow_at_first(task: int, reading: Reading) -> int:
    if task == 0:
        time.sleep(2)
    return task


def test_no_more_results_wait_behind_a_slow_task_than_the_workers_have_slots():
    taken = []

    def tasks() -> Iterator[int]:
        for task in range(100):
            taken.append(task)
            yield task

    with closing(Workers(slow_at_first, num_workers=2, timeout_seconds=60)) as workers:
        assert next(workers.map(tasks())) == 0
        assert len(taken) == 2 * workers_module.SLOTS


def arrays_of(task: int, reading: Reading) -> dict[str, Any]:
    rng = np.random.default_rng(task)
    return {"small": rng.random(7), "large": rng.integers(0, 256, (task, 1024), dtype=np.uint8)}


def test_arrays_arrive_whole_whether_they_fit_into_the_shared_memory_or_not(monkeypatch):
    monkeypatch.setattr(workers_module, "SLOT_BYTES", 64 << 10)
    sizes = [1, 0, 40, 70, 3, 1300, 2]
    with closing(Workers(arrays_of, num_workers=1, timeout_seconds=60)) as workers:
        for size, result in zip(sizes, workers.map(sizes), strict=True):
            expected = arrays_of(size, Reading({}, lambda clip: None))
            np.testing.assert_array_equal(result["small"], expected["small"])
            np.testing.assert_array_equal(result["large"], expected["large"])


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_a_worker_that_is_killed_or_stopped_while_it_sends_is_replaced(monkeypatch, number):
    monkeypatch.setattr(workers_module, "SLOT_BYTES", 1 << 10)
    monkeypatch.setattr(workers_module, "_STALLED_SECONDS", 0.5)
    with closing(Workers(arrays_of, num_workers=1, timeout_seconds=60)) as workers:
        results = workers.map([0, 4000])
        next(results)
        time.sleep(0.5)  # the second result is larger than what a pipe holds
        for process in multiprocessing.active_children():
            os.kill(process.pid or 0, number)
        expected = arrays_of(4000, Reading({}, lambda clip: None))
        np.testing.assert_array_equal(next(results)["large"], expected["large"])


def announce_often(task: tuple[int, bytes], reading: Reading) -> int:
    for number in range(task[0]):
        reading(f"clip{number}")
    return len(task[1])


def test_large_tasks_and_many_clips_do_not_wait_for_each_other():
    tasks = [(1000, bytes(1 << 20))] * 4
    with closing(Workers(announce_often, num_workers=1, timeout_seconds=5)) as workers:
        assert list(workers.map(tasks)) == [1 << 20] * 4
        assert workers.lost == {}


def test_results_stay_as_they_are_while_the_workers_go_on():
    sizes = [3, 1, 2, 1, 3, 2, 1, 2]
    with closing(Workers(arrays_of, num_workers=1, timeout_seconds=60)) as workers:
        results = list(workers.map(sizes))
    for size, result in zip(sizes, results, strict=True):
        expected = arrays_of(size, Reading({}, lambda clip: None))
        np.testing.assert_array_equal(result["small"], expected["small"])
        np.testing.assert_array_equal(result["large"], expected["large"])


def read_clips(clips: list[str], reading: Reading) -> list[str]:
    """Names of the clips that could be read; some end the process."""
    done = []
    for clip in clips:
        if clip in reading.lost:
            continue
        reading(clip)
        if clip == "segfault":
            ctypes.string_at(0)
        if clip == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
        if clip == "hangs":
            ctypes.PyDLL(None).sleep(60)  # in C, and without letting go of Python's lock
        done.append(clip)
    return done


@pytest.mark.timeout(60)
def test_a_clip_that_crashes_or_hangs_is_named_and_left_out_and_the_rest_is_done():
    tasks = [["a"], ["b", "segfault", "c"], ["d"], ["hangs"], ["killed", "segfault", "e"], ["f"]]
    with closing(Workers(read_clips, num_workers=2, timeout_seconds=1)) as workers:
        results = list(workers.map(tasks))
        assert results == [["a"], ["b", "c"], ["d"], [], ["e"], ["f"]]
        assert workers.lost == {
            "segfault": "ends the process that reads it (SIGSEGV)",
            "hangs": "takes more than 1 s to read",
            "killed": "ends the process that reads it (SIGKILL)",
        }
        assert list(workers.map([["segfault", "g"]])) == [["g"]]


def killed_once(task: Path, reading: Reading) -> str:
    reading(task.name)
    if not task.exists():
        task.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return task.name


def test_a_clip_on_which_a_worker_was_killed_from_outside_is_read_once_more(tmp_path):
    with closing(Workers(killed_once, num_workers=1, timeout_seconds=60)) as workers:
        results = list(workers.map([tmp_path / name for name in "abcde"]))
        assert "".join(results) == "abcde"
        assert workers.lost == {}


def die_at_once(task: int, reading: Reading) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_workers_that_die_before_they_read_are_an_error_and_no_endless_loop():
    with (
        closing(Workers(die_at_once, num_workers=1, timeout_seconds=60)) as workers,
        pytest.raises(MidwayError, match=r"die before they begin to read \(SIGKILL\);.*use fewer"),
    ):
        list(workers.map([0]))


def refuse(task: int, reading: Reading) -> int:
    if task == 2:
        raise MidwayError("two: is no task; give another")
    if task == 5:
        raise ValueError("a mistake in the work")
    return task


@pytest.mark.parametrize("num_workers", [0, 1])
def test_an_error_for_the_user_arrives_as_it_was_raised(num_workers):
    with closing(Workers(refuse, num_workers=num_workers, timeout_seconds=60)) as workers:
        results = workers.map([0, 1, 2, 3, 4])
        assert [next(results), next(results)] == [0, 1]
        with pytest.raises(MidwayError, match=r"^two: is no task; give another$"):
            next(results)


def test_a_mistake_in_the_work_shows_its_traceback(capfd):
    with (
        closing(Workers(refuse, num_workers=1, timeout_seconds=60)) as workers,
        pytest.raises(RuntimeError, match="exit code 1"),
    ):
        list(workers.map([5]))
    assert "ValueError: a mistake in the work" in capfd.readouterr().err


def slow(task: int, reading: Reading) -> NDArray[np.int64]:
    for step in range(4):
        reading(f"clip {task}, part {step}")
        time.sleep(0.4)
    return np.array(task)


def test_every_announcement_gives_new_time():
    with closing(Workers(slow, num_workers=1, timeout_seconds=1)) as workers:
        assert list(workers.map([3])) == [np.array(3)]
        assert workers.lost == {}


def given_back(task: int, reading: Reading) -> float:
    """Share of the memory of ten frames that goes back to the system when they are freed."""

    def resident() -> int:
        return int(_STATM.read_text().split()[1]) * resource.getpagesize()

    frames = [bytearray(b"1") * 2_764_800 for _ in range(10)]
    held, size = resident(), sum(map(len, frames))
    del frames
    return (held - resident()) / size


@pytest.mark.skipif(
    not (hasattr(ctypes.CDLL(None), "mallopt") and _STATM.exists()), reason="needs glibc on Linux"
)
def test_a_worker_keeps_the_memory_of_its_frames_for_the_next_task():
    with closing(Workers(given_back, num_workers=1, timeout_seconds=60)) as workers:
        assert max(map(abs, workers.map(range(3)))) < 0.1


def process_id(task: int, reading: Reading) -> int:
    return os.getpid()


def test_a_signal_to_the_whole_group_leaves_workers_alone_from_their_start(capfd):
    with closing(Workers(process_id, num_workers=1, timeout_seconds=60)) as workers:
        (process,) = multiprocessing.active_children()
        for number in (signal.SIGINT, signal.SIGTERM):
            os.kill(process.pid or 0, number)
        assert list(workers.map(range(2))) == [process.pid] * 2
    assert capfd.readouterr().err == ""


def is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_no_process_is_left_behind():
    with closing(Workers(process_id, num_workers=1, timeout_seconds=60)) as workers:
        (process,) = set(workers.map(range(3)))
        assert is_alive(process)
    assert not is_alive(process)


def test_closing_ends_a_map_in_another_thread_in_whatever_its_workers_are_doing():
    workers = Workers(read_clips, num_workers=2, timeout_seconds=60)
    results = []
    thread = Thread(target=lambda: results.extend(workers.map([["hangs"]] * 5)))
    thread.start()
    time.sleep(0.2)
    workers.close()
    thread.join(timeout=20)
    assert not thread.is_alive()
    assert results == []
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("seen", [1, 3])
def test_nothing_stays_open_behind_workers(seen):
    def see_some() -> None:
        with closing(Workers(process_id, num_workers=1, timeout_seconds=60)) as workers:
            assert len(list(islice(workers.map(range(3)), seen))) == seen

    def open_files() -> set[str]:
        gc.collect()
        return {str(file.readlink()) for file in Path("/proc/self/fd").iterdir() if file.exists()}

    see_some()  # what serves all processes to come stays open
    before = open_files()
    see_some()
    assert open_files() <= before


HANGING = """
import os, sys, time
from midway.data.workers.pool import Workers
from tests.data.workers.test_pool import hang

if __name__ == "__main__":
    workers = Workers(hang, num_workers=1, timeout_seconds=60)
    results = workers.map([0])
    next(results)
"""


def hang(task: int, reading: Reading) -> None:
    reading("clip")
    sys.stdout.write(f"{os.getpid()}\n")
    sys.stdout.flush()
    time.sleep(60)


def test_workers_end_with_a_parent_that_was_killed():
    command = [sys.executable, "-c", HANGING]
    with subprocess.Popen(command, cwd=Path(__file__).parents[3], stdout=subprocess.PIPE) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        parent.kill()
        # The pipe is at its end once the worker, too, has let go of it.
        assert parent.stdout.read() == b""
    assert not Path(f"/proc/{worker}/exe").exists()


def stop_at_first(task: tuple[str, Path], reading: Reading) -> str:
    clip, flag = task
    if clip in reading.lost:
        return "lost"
    reading(clip)
    if clip != "b" or flag.exists():
        return clip
    flag.touch()
    os.kill(os.getpid(), signal.SIGSTOP)
    return clip


def stop_always(task: str, reading: Reading) -> str:
    if task in reading.lost:
        return "lost"
    reading(task)
    if task == "b":
        os.kill(os.getpid(), signal.SIGSTOP)
    return task


@pytest.mark.timeout(60)
def test_a_stopped_worker_is_killed_by_the_parent_and_its_clip_is_read_once_more(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(workers_module, "_GRACE_SECONDS", 0.0)
    with closing(Workers(stop_at_first, num_workers=1, timeout_seconds=1)) as workers:
        tasks = [(clip, tmp_path / "stopped") for clip in "abc"]
        assert list(workers.map(tasks)) == ["a", "b", "c"]
        assert workers.lost == {}
    with closing(Workers(stop_always, num_workers=1, timeout_seconds=1)) as workers:
        assert list(workers.map("abc")) == ["a", "lost", "c"]
        assert list(workers.lost) == ["b"]


def stop_before_any_clip(task: int, reading: Reading) -> int:
    os.kill(os.getpid(), signal.SIGSTOP)
    return task


@pytest.mark.timeout(60)
def test_workers_that_stop_before_they_read_are_an_error(monkeypatch):
    monkeypatch.setattr(workers_module, "_GRACE_SECONDS", 0.0)
    monkeypatch.setattr(workers_module, "_SILENT_SECONDS", 0.0)
    with (
        closing(Workers(stop_before_any_clip, num_workers=1, timeout_seconds=2.5)) as workers,
        pytest.raises(MidwayError, match="before they begin to read"),
    ):
        list(workers.map([0]))


def full(task: str, reading: Reading) -> str:
    if task:
        reading(task)
    raise OSError(28, "No space left on device")


@pytest.mark.parametrize(("task", "line"), [("a.mp4", "^a.mp4: No space"), ("", "^No space")])
def test_an_error_of_the_system_is_one_line_with_the_clip(task, line, capfd):
    with (
        closing(Workers(full, num_workers=1, timeout_seconds=60)) as workers,
        pytest.raises(MidwayError, match=line),
    ):
        list(workers.map([task]))
    assert "Traceback" not in capfd.readouterr().err
