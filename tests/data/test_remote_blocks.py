"""Blocks of files behind URLs: every byte comes once, in few requests, and never a wrong one."""

import numpy as np
import pytest

from midway.data.remote_blocks import MAX_AHEAD, MAX_BLOCKS, RemoteBlocks

BLOCK = 10
CONTENT = bytes(range(256)) * 4


class Fetcher:
    """Source of the bytes, which lists the requests."""

    def __init__(self) -> None:
        self.requests: list[tuple[int, int]] = []

    def __call__(self, start: int, stop: int) -> bytes:
        assert 0 <= start < stop <= len(CONTENT)
        self.requests.append((start, stop))
        return CONTENT[start:stop]


@pytest.fixture
def fetcher() -> Fetcher:
    return Fetcher()


@pytest.fixture
def blocks(fetcher: Fetcher) -> RemoteBlocks:
    return RemoteBlocks(BLOCK, fetcher, len(CONTENT))


def test_parts_drawn_at_random_are_those_of_the_file(blocks, fetcher):
    rng = np.random.default_rng(0)
    for _ in range(500):
        start, stop = np.sort(rng.integers(0, len(CONTENT) + 30, 2)).tolist()
        assert blocks._fetch(start, stop) == CONTENT[start:stop]
    assert blocks._fetch(None, None) == CONTENT
    assert blocks._fetch(len(CONTENT), len(CONTENT) + 5) == b""


def test_head_and_tail_are_fetched_once_however_often_they_are_read(blocks, fetcher):
    for _ in range(5):
        blocks._fetch(0, 8)
        blocks._fetch(len(CONTENT) - 4, len(CONTENT))
        blocks._fetch(500, 505)
    assert fetcher.requests == [(0, 10), (1020, 1024), (500, 510)]


def test_missing_blocks_in_a_row_come_by_one_request(blocks, fetcher):
    blocks._fetch(30, 35)
    blocks._fetch(0, 95)
    assert fetcher.requests == [(30, 40), (0, 30), (40, 100)]


def test_a_sequence_of_reads_asks_for_more_and_more_and_a_jump_for_little_again(blocks, fetcher):
    for start in range(0, 300, 5):
        blocks._fetch(start, start + 5)
    sizes = [stop - start for start, stop in fetcher.requests]
    assert sizes[:3] == [BLOCK, 2 * BLOCK, 4 * BLOCK]
    assert max(sizes) == MAX_AHEAD * BLOCK
    assert all(a[1] == b[0] for a, b in zip(fetcher.requests, fetcher.requests[1:], strict=False))
    blocks._fetch(900, 901)
    assert fetcher.requests[-1] == (900, 910)


def test_memory_is_bounded_and_dropped_blocks_come_again(blocks, fetcher):
    blocks._fetch(0, 5)
    for number in range(10, 10 + 2 * MAX_BLOCKS, 2):  # with gaps, so that nothing is read ahead
        blocks._fetch(BLOCK * number, BLOCK * number + 1)
    count = len(fetcher.requests)
    assert blocks._fetch(0, 5) == CONTENT[:5]
    assert fetcher.requests[count:] == [(0, 10)]


def test_a_server_that_sends_too_little_is_an_error_and_not_the_end_of_the_file():
    blocks = RemoteBlocks(BLOCK, lambda start, stop: b"abc", len(CONTENT))
    with pytest.raises(OSError, match="the server sent 3 of 10 bytes"):
        blocks._fetch(0, 5)
