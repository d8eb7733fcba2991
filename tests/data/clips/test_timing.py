"""Chains of frames a set time apart are found where a slow search finds them, and nowhere else."""

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from midway.data.clip import Clip
from midway.data.clips.frame_folder import FrameSequence
from midway.data.clips.timing import (
    Gap,
    followed_by,
    follows,
    has_sample,
    partners,
    start_frames,
)


def clip_at(seconds: NDArray[np.float64], fps: float = 10) -> Clip:
    return FrameSequence(name="f", frames=("f/0.png",), frame_seconds=seconds, fps=fps)


@dataclass(frozen=True)
class SlowSearch:
    """Frames counted at 10 Hz; gaps in counts."""

    counts: list[int]
    smallest: int
    largest: int

    def chains(self, start: int, num_more: int) -> bool:
        """Whether so many frames can follow, by trying them all."""
        return num_more == 0 or any(
            self.smallest <= self.counts[other] - self.counts[start] <= self.largest
            and self.chains(other, num_more - 1)
            for other in range(start + 1, len(self.counts))
        )


def random_counts(rng: np.random.Generator) -> list[int]:
    """Up to 13 frames with holes of up to 5 counts between them."""
    steps = rng.integers(1, rng.integers(2, 7), size=rng.integers(0, 13))
    return [0, *np.cumsum(steps).tolist()]


@pytest.mark.parametrize("seed", range(60))
def test_a_frame_is_followed_by_as_many_as_a_slow_search_finds(seed: int) -> None:
    rng = np.random.default_rng(seed)
    counts = random_counts(rng)
    smallest = int(rng.integers(1, 6))
    largest = smallest + int(rng.integers(0, 4))
    slow = SlowSearch(counts, smallest, largest)
    clip, gap = clip_at(np.array(counts) / 10), (smallest / 10, largest / 10)
    found = followed_by(clip, 5, gap)
    assert len(found) == 6
    for num_more, followed in enumerate(found):
        expected = [slow.chains(start, num_more) for start in range(len(counts))]
        assert followed.tolist() == expected
        starts = start_frames(clip, gap, num_more + 1)
        assert starts.tolist() == np.flatnonzero(expected).tolist()
        assert has_sample(clip, gap, num_more + 1) == any(expected)


@pytest.mark.parametrize(
    ("num_frames", "gap", "starts"),
    [
        (1, (0.5, 1.0), 31),  # every frame is a sample of one
        (2, (0.5, 1.0), 26),
        (3, (0.5, 1.0), 21),
        (7, (0.5, 1.0), 1),
        (8, (0.5, 1.0), 0),
    ],
)
def test_starts_of_even_frames_leave_room_for_the_shortest_gaps(
    num_frames: int, gap: Gap, starts: int
) -> None:
    clip = clip_at(np.arange(31) / 10)
    assert start_frames(clip, gap, num_frames).tolist() == list(range(starts))
    assert has_sample(clip, gap, num_frames) == (starts > 0)


@pytest.mark.parametrize("gap", [(0.5, 1.0), (1.5, 2.0), (0.001, 2.4)])
def test_a_frame_is_never_its_own_partner(gap: Gap) -> None:
    # Half a frame period of tolerance exceeds the smallest gaps.
    assert start_frames(clip_at(np.arange(20) * 5.0, fps=0.2), gap).size == 0


def test_a_frame_twice_at_one_time_is_no_pair() -> None:
    clip = clip_at(np.array([0.0, 0.0, 0.1, 0.1]), fps=10)
    assert start_frames(clip, (0.01, 0.1)).tolist() == [0, 1]


def test_an_exact_gap_between_two_frames_takes_either() -> None:
    clip = clip_at(np.arange(60) / 12.5, fps=12.5)
    assert start_frames(clip, (1.0, 1.0), num_frames=4).tolist() == [*range(60 - 3 * 12)]
    first, end = partners(clip.frame_seconds, 0.0, gap_seconds=(1.0, 1.0), fps=12.5)
    assert (first, end) == (12, 14)
    # Half a frame is no gap.
    assert not has_sample(clip_at(np.arange(60) / 25, fps=25), (0.02, 0.02))
    # A range of gaps has the frames inside it: up to 15 of 12.5 to 15.
    first, end = partners(clip.frame_seconds, 0.0, gap_seconds=(1.0, 1.2), fps=12.5)
    assert (first, end) == (13, 16)


@pytest.mark.parametrize(
    ("gap", "allowed"),
    [(0.0, False), (-0.7, False), (0.5, True), (1.0, True), (0.41, True), (0.3, False)],
)
def test_gaps_that_were_read_lie_in_the_range(gap: float, allowed: bool) -> None:
    assert follows(gap, (0.5, 1.0), fps=10) is allowed
    assert follows(gap, (0.01, 0.1), fps=0.2) is (gap > 0)


def test_a_gap_of_zero_repeats_the_frame():
    times = np.arange(5) / 10
    first, end = partners(times, times, gap_seconds=(0.0, 0.0), fps=10.0)
    np.testing.assert_array_equal(first, np.arange(5))
    np.testing.assert_array_equal(end, first + 1)
    assert follows(0.0, (0.0, 0.0), 10.0)
    assert not follows(0.1, (0.0, 0.0), 10.0)
    assert not follows(0.0, (0.0, 0.3), 10.0)
