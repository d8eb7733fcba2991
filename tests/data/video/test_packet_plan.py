"""Packets requested, against a count over the whole list; contradictory timestamps."""

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from midway.data.video.packet_plan import PacketPlan, UnplannableError


def packet(pts: int | None, dts: int | None) -> av.Packet:
    made = av.Packet(b"picture")
    made.pts, made.dts = pts, dts
    return made


@st.composite
def streams(draw) -> list[tuple[int, int]]:
    """(pts, dts) in order of decoding: uneven times, groups of pictures decoded in any order."""
    steps = draw(st.lists(st.integers(1, 50), min_size=1, max_size=30))
    shown = [sum(steps[: count + 1]) for count in range(len(steps))]
    decoded: list[int] = []
    while len(decoded) < len(shown):
        group = shown[len(decoded) : len(decoded) + draw(st.integers(1, 5))]
        decoded += draw(st.permutations(group))
    delay = max(pts - after for pts, after in zip(shown, decoded, strict=True))
    return [(pts, dts - delay) for pts, dts in zip(decoded, shown, strict=True)]


@given(streams(), st.data())
def test_a_packet_is_asked_for_by_the_times_from_it_to_the_next_shown(stream, data):
    shown = sorted(pts for pts, _ in stream)
    times = sorted(data.draw(st.lists(st.integers(shown[0], shown[-1] + 60), max_size=20)))
    plan = PacketPlan(times)
    planned = []
    for pts, dts in stream:
        plan.add(packet(pts, dts))
        planned += plan.planned()
    plan.add(av.Packet())
    planned += plan.planned()
    assert [each.pts for each in planned] == [pts for pts, _ in stream]
    expected = dict.fromkeys(shown, 0)
    for time in times:
        expected[max(pts for pts in shown if pts <= time)] += 1
    assert {each.pts: each.num_times for each in planned} == expected
    assert [each.pts for each in planned if each.is_last] == shown[-1:]


def test_a_packet_is_decided_as_soon_as_its_successor_is_decoded():
    plan = PacketPlan([30])
    planned = []
    for number, pts in enumerate([0, 40, 20, 10, 30, 80]):
        plan.add(packet(pts, 10 * number - 20))
        planned.append([(each.pts, each.num_times) for each in plan.planned()])
    # The frame after that at 40 is not known when the one at 30 is decoded.
    assert planned == [[], [], [], [(0, 0)], [], []]
    plan.add(packet(60, 40))
    assert [each.pts for each in plan.planned()] == []
    plan.add(packet(50, 50))
    assert [(each.pts, each.num_times) for each in plan.planned()] == [
        (40, 0),
        (20, 0),
        (10, 0),
        (30, 1),
    ]


@pytest.mark.parametrize(
    ("name", "lies"),
    [
        ("no time", [(0, 0), (None, 1)]),
        ("shown before it is decoded", [(0, 0), (1, 2)]),
        ("decoded backwards", [(5, 0), (7, 2), (8, 1)]),
        ("shown twice", [(0, 0), (5, 1), (5, 2)]),
        ("without a time of decoding, and too early", [(5, 0), (9, 6), (3, None)]),
    ],
)
def test_times_that_contradict_each_other_cannot_be_planned(name, lies):
    plan = PacketPlan([0])
    for pts, dts in lies[:-1]:
        plan.add(packet(pts, dts))
    with pytest.raises(UnplannableError):
        plan.add(packet(*lies[-1]))
