"""Selection of the packets of a video that have to be decoded for a set of times.

Packets come in decoding order, which differs from presentation order. No later packet is presented
before the decoding time (dts) of the current one. A few packets of look-ahead therefore determine
which frame is shown at a time, at any frame rate, before anything is decoded.
"""

import math
from bisect import bisect_left, bisect_right, insort
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from av.packet import Packet
from av.video.stream import VideoStream


class UnplannableError(Exception):
    """The timestamps of the packets are missing or contradict each other."""


class PlannedPacket(NamedTuple):
    """A packet, and the use of its frame."""

    packet: "Packet[VideoStream]"
    pts: int
    """Presentation time of its frame, in ticks of the stream."""
    num_times: int
    """Number of requested times at which its frame is shown; 0 if it is not requested."""
    is_last: bool
    """If True, its frame is the last one of the stream."""


class PacketPlan:
    """Queue that releases a packet once it is known whether its frame is requested.

    Args:
        times: Requested times in ticks of the stream, increasing.
    """

    def __init__(self, times: Sequence[int]) -> None:
        self._times = times
        self._waiting: deque[Packet[VideoStream]] = deque()
        self._shown: list[int] = []
        self._dts = -math.inf

    def add(self, packet: "Packet[VideoStream]") -> None:
        """Add the next packet; an empty one ends the stream.

        Raises:
            UnplannableError: It has no timestamp, or one that earlier packets rule out.
        """
        if not packet.size:
            self._dts = math.inf
            return
        pts, dts = packet.pts, packet.dts
        if pts is None or pts <= self._dts - 1:
            raise UnplannableError
        if dts is not None:
            if dts > pts or dts < self._dts:
                raise UnplannableError
            self._dts = dts
        self._waiting.append(packet)
        # Frames that an edit list cuts off are decoded but not shown.
        if not packet.is_discard:
            if self._following(pts - 1) == pts:
                raise UnplannableError
            insort(self._shown, pts)

    def planned(self) -> Iterator[PlannedPacket]:
        """Yield the packets that no later packet can affect, in decoding order."""
        while self._waiting:
            packet = self._waiting[0]
            pts = packet.pts
            assert pts is not None  # `add` rejects such packets
            following = self._following(pts)
            if following > self._dts:
                return
            times = bisect_left(self._times, following) - bisect_left(self._times, pts)
            self._waiting.popleft()
            num_times = 0 if packet.is_discard else times
            yield PlannedPacket(packet, pts, num_times, following == math.inf)

    def _following(self, pts: int) -> float:
        place = bisect_right(self._shown, pts)
        return self._shown[place] if place < len(self._shown) else math.inf
