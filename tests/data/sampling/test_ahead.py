"""Files that readouts read: a bad one or a killed worker ends in one line, and nothing hangs."""

import ctypes
import multiprocessing
import os
import signal

import pytest
import torch

from midway.data.sampling.ahead import read_ahead
from midway.data.workers.pool import Reading
from midway.errors import MidwayError


def read(names: list[str], reading: Reading) -> list[str]:
    for name in names:
        reading.require(name)
        if name == "damaged.png":
            raise MidwayError(f"{name}: no readable image; replace the file")
        if name == "segfault.png":
            ctypes.string_at(0)
        if name == "killed.png":
            os.kill(os.getpid(), signal.SIGKILL)
        if name == "hangs.png":
            ctypes.PyDLL(None).sleep(60)
    return names


def batches(tasks, *, num_workers=1, timeout_seconds=60.0):
    return read_ahead(
        read,
        tasks,
        lambda results: map(" ".join, results),
        num_workers=num_workers,
        timeout_seconds=timeout_seconds,
    )


@pytest.mark.parametrize("num_workers", [0, 2])
def test_batches_come_in_order_and_draw_no_random_number(num_workers):
    state = torch.get_rng_state()
    tasks = [[f"{number}.png", "b.png"] for number in range(8)]
    assert list(batches(tasks, num_workers=num_workers)) == [" ".join(task) for task in tasks]
    assert torch.equal(torch.get_rng_state(), state)
    assert multiprocessing.active_children() == []


@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("damaged.png", "damaged.png: no readable image; replace the file"),
        (
            "segfault.png",
            "segfault.png: ends the process that reads it (SIGSEGV); replace the file",
        ),
        ("killed.png", "killed.png: ends the process that reads it (SIGKILL); replace the file"),
        ("hangs.png", "hangs.png: takes more than 2 s to read; replace the file"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line_after_the_batches_before(name, message):
    reader = batches([["a.png"], ["b.png", name], ["c.png"]], timeout_seconds=2)
    assert next(reader) == "a.png"
    with pytest.raises(MidwayError) as caught:
        list(reader)
    assert str(caught.value) == message
    assert multiprocessing.active_children() == []


def test_a_worker_that_is_killed_once_is_replaced_and_nothing_is_lost():
    reader = batches([[f"{number}.png"] for number in range(20)])
    assert next(reader) == "0.png"
    for process in multiprocessing.active_children():
        os.kill(process.pid or 0, signal.SIGKILL)
    assert list(reader) == [f"{number}.png" for number in range(1, 20)]


def test_closing_before_the_end_leaves_no_process():
    reader = batches([[f"{number}.png"] for number in range(20)])
    next(reader)
    reader.close()
    assert multiprocessing.active_children() == []
