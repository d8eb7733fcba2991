"""The order of a stream: the published sequence, shared by processes, from any step on."""

from collections import Counter
from dataclasses import replace

import pytest

from midway.data.sampling.stream import Stream
from midway.errors import MidwayError

# Written by the loaders of version 0.1.0, before they shared this class.
PAIRS = Stream(size=7, batch_size=12, samples_per_item=3, seed=5)
LARGE = Stream(size=100, batch_size=64, samples_per_item=4, seed=1, rank=3, world_size=4)
IMAGES = Stream(size=5, batch_size=8, seed=0)
FLOW = Stream(size=10, batch_size=4, seed=2, max_epoch_size=6)


@pytest.mark.parametrize(
    ("stream", "steps"),
    [
        (
            PAIRS,
            {
                0: [(0, 1), (0, 4), (0, 2), (0, 3)],
                3: [(1, 3), (1, 1), (2, 0), (2, 4)],
                1000: [(571, 1), (571, 2), (571, 4), (571, 3)],
            },
        ),
        (
            replace(PAIRS, rank=1, world_size=2),
            {0: [(0, 4), (0, 3)], 3: [(1, 1), (2, 4)], 1000: [(571, 2), (571, 3)]},
        ),
        (
            LARGE,
            {
                0: [(0, 81), (0, 5), (0, 67), (0, 17)],
                6: [(0, 59), (1, 11), (1, 10), (1, 91)],
            },
        ),
        (IMAGES, {0: [(0, 2), (0, 4), (0, 3), (0, 0), (0, 1), (1, 1), (1, 4), (1, 3)]}),
        (replace(IMAGES, rank=1, world_size=4), {0: [(0, 4), (1, 1)], 7: [(11, 4), (12, 1)]}),
        (
            FLOW,
            {
                0: [(0, 2), (0, 0), (0, 7), (0, 6)],
                1: [(0, 9), (0, 5), (1, 0), (1, 8)],
                2: [(1, 9), (1, 2), (1, 3), (1, 6)],
            },
        ),
        (replace(FLOW, rank=1, world_size=2), {1: [(0, 5), (1, 8)], 2: [(1, 2), (1, 6)]}),
        (
            replace(FLOW, rank=1, world_size=2, max_epoch_size=30),
            {5: [(2, 9), (2, 5)]},
        ),
    ],
)
def test_the_sequence_is_that_of_earlier_versions(stream, steps):
    assert {step: stream.keys(step) for step in steps} == steps


def test_steps_per_epoch_count_samples_and_are_never_zero():
    streams = (PAIRS, LARGE, IMAGES, FLOW, replace(FLOW, max_epoch_size=None))
    assert [stream.steps_per_epoch for stream in streams] == [1, 1, 1, 1, 2]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_processes_share_a_step_and_an_epoch_has_every_item_once(world_size):
    ranks = [
        Stream(size=24, batch_size=8, seed=3, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    keys = [key for step in range(3) for stream in ranks for key in stream.keys(step)]
    assert Counter(keys) == Counter((0, index) for index in range(24))
    assert all(len(stream.keys(0)) == stream.items_per_process for stream in ranks)


def test_a_batch_that_processes_cannot_share_is_refused_with_one_that_they_can():
    with pytest.raises(
        MidwayError, match="batch_size = 8 cannot be shared by 3 processes; give a multiple of 3"
    ):
        replace(IMAGES, world_size=3)
    with pytest.raises(
        MidwayError,
        match=r"12: 4 clips of 3 samples cannot be shared by 8 .* give a multiple of 24",
    ):
        replace(PAIRS, world_size=8)
