"""Which packets of a video hold the pictures that were asked for.

Packets come in the order of decoding and pictures are shown in another. All pictures after a
packet are shown no earlier than it is decoded (its dts), so a few packets ahead it is certain
which picture is shown at a time, at any frame rate, and before anything is decoded.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from av.packet import Packet
from av.video.stream import VideoStream


class UnplannableError(Exception):
    """The times of the packets contradict each other."""


class Decided(NamedTuple):
    """A packet, and what is asked of its picture."""

    packet: "Packet[VideoStream]"
    pts: int
    """When its picture is shown."""
    times: int
    """How many of the times asked for show its picture."""
    is_last: bool
    """Whether no picture is shown after it."""


class Lookahead:
    """Holds packets back until it is known whether their pictures are asked for.

    Args:
        times: Times asked for, increasing, in the ticks of the stream.
    """

    def __init__(self, times: Sequence[int]) -> None:
        self._times = times
        self._held: deque[Packet[VideoStream]] = deque()
        self._shown: list[int] = []
        self._reached = -math.inf

    def add(self, packet: "Packet[VideoStream]") -> None:
        """Take the next packet; an empty one ends the stream.

        Raises:
            UnplannableError: It has no time, or one that the packets before it rule out.
        """
        if not packet.size:
            self._reached = math.inf
            return
        pts, dts = packet.pts, packet.dts
        if pts is None or pts <= self._reached - 1:
            raise UnplannableError
        if dts is not None:
            if dts > pts or dts < self._reached:
                raise UnplannableError
            self._reached = dts
        self._held.append(packet)
        # What an edit list cuts off is decoded but not shown.
        if not packet.is_discard:
            if self._following(pts - 1) == pts:
                raise UnplannableError
            insort(self._shown, pts)

    def decided(self) -> Iterator[Decided]:
        """The packets that no later one can change anything about, in order of decoding."""
        while self._held:
            packet = self._held[0]
            pts = packet.pts
            assert pts is not None  # `add` refuses those
            following = self._following(pts)
            if following > self._reached:
                return
            times = bisect_left(self._times, following) - bisect_left(self._times, pts)
            self._held.popleft()
            yield Decided(packet, pts, 0 if packet.is_discard else times, following == math.inf)

    def _following(self, pts: int) -> float:
        place = bisect_right(self._shown, pts)
        return self._shown[place] if place < len(self._shown) else math.inf
