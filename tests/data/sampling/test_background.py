"""Items made in a thread: the same ones, in order, and no more than were allowed ahead."""

import threading
from collections.abc import Iterator

import pytest

from midway.data.sampling.ahead import in_background


def test_items_come_in_order_and_from_another_thread():
    makers = set()

    def items() -> Iterator[int]:
        for number in range(20):
            makers.add(threading.current_thread())
            yield number

    assert list(in_background(items(), ahead=3)) == list(range(20))
    assert len(makers) == 1
    assert threading.current_thread() not in makers


def test_only_so_many_are_made_ahead():
    made = threading.Semaphore(0)
    count = 0

    def items() -> Iterator[int]:
        nonlocal count
        while True:
            count += 1
            made.release()
            yield count

    background = in_background(items(), ahead=2)
    assert next(background) == 1
    for _ in range(3):
        assert made.acquire(timeout=10)
    assert not made.acquire(timeout=0.2)
    assert count == 3
    background.close()


def test_an_error_is_raised_in_its_turn():
    def items() -> Iterator[int]:
        yield 1
        raise ValueError("two")

    background = in_background(items(), ahead=4)
    assert next(background) == 1
    with pytest.raises(ValueError, match="two"):
        next(background)


def test_closing_it_lets_the_thread_end():
    ended = threading.Event()

    def items() -> Iterator[int]:
        number = 0
        while not ended.wait(0.01):
            number += 1
            yield number

    background = in_background(items(), ahead=2)
    next(background)
    background.close()
    (thread,) = (t for t in threading.enumerate() if t.name.startswith("midway-batches"))
    thread.join(timeout=10)
    assert not thread.is_alive()
