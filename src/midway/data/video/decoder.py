"""Decoding of the frames of a video at given presentation times.

Decoding dominates the cost of random access. Between two keyframes only the requested frames and
their reference frames are decoded, and the reader seeks wherever that skips a keyframe.
"""

import math
from bisect import insort
from collections.abc import Iterator, Sequence
from itertools import chain, repeat
from operator import attrgetter

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from midway.data.clip import BadClipError
from midway.data.video.damage import DamageCheck
from midway.data.video.header import COPY_AGAIN, REENCODE, open_stream
from midway.data.video.orientation import has_orientation_message
from midway.data.video.packet_plan import PacketPlan, PlannedPacket, UnplannableError

# These formats have no index of keyframes, so a seek may land at any frame.
_UNINDEXED_FORMATS = frozenset(["mpegts", "mpeg", "ogg"])
_UNINDEXED_SECONDS = 1.0


class FrameDecoder:
    """Decoder of an open video; times are presentation timestamps (pts) in ticks of the stream.

    The frames of a call depend only on the file and the times of that call, because every call
    starts with a seek.

    Args:
        location: Path or URL.

    Raises:
        BadClipError: The file is not a video, has a single frame or none that can be decoded.
        OSError: As in `open_stream`.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.is_turned_by_message = False
        """True if the stream states its orientation in messages between its frames."""
        self._damage = DamageCheck(self._damaged)
        self._keyframes: dict[int, int] = {}
        self._open()
        try:
            self.header = self._source.header()
            self.tick_seconds = float(self._source.tick_seconds)
            self._ticks_per_second = math.ceil(1 / self._source.tick_seconds)
            self.notes = self._source.notes()
            self.first_pts = self._find_first_pts()
            self._index_offset = self._find_index_offset()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Close the file."""
        self._source.close()

    def seconds(self, pts: int) -> float:
        """Return a presentation time as seconds after the first frame."""
        return self._duration(pts - self.first_pts)

    def pts_of(self, frame: VideoFrame) -> int:
        """Return the presentation time of a decoded frame.

        Raises:
            BadClipError: The frame has no timestamp.
        """
        if frame.pts is None:
            raise BadClipError(self.location, "has frames without timestamps", REENCODE)
        return frame.pts

    def frames(self, times: Sequence[int]) -> Iterator[VideoFrame]:
        """Yield for each time the last frame shown at or before it.

        Do not read by other means until the iterator is exhausted or closed.

        Args:
            times: Presentation times, increasing, none before `first_pts`.

        Raises:
            BadClipError: The stream ends before one of the times, or has no timestamps.
            FFmpegError: The stream is damaged.
        """
        start = 0
        while start < len(times):
            run = times[start : self._run_end(times, start)]
            num_yielded = 0
            try:
                for frame in self._decode_planned(run):
                    num_yielded += 1
                    yield frame
            except UnplannableError:
                yield from self._decode_all(run[num_yielded:])
            start += len(run)

    def keyframe_at(self, time: int) -> int | None:
        """Return the presentation time of the last keyframe shown at or before a time.

        Only packets are read.

        Returns:
            None if the stream has no keyframe up to that time.
        """
        entry = self._index_entry(time)
        if entry in self._keyframes and self._keyframes[entry] <= time:
            return self._keyframes[entry]
        for packets in self._seek_back(time):
            found = None
            for packet in packets:
                if packet.dts is not None and packet.dts > time:
                    break
                pts = packet.pts
                if pts is None or not self.first_pts <= pts <= time:
                    continue
                if packet.is_keyframe and not packet.is_discard:
                    found = pts
                    if not self._is_unindexed:
                        # The index led to the last one, or, if that is shown later, to another.
                        if entry is not None and entry in (pts, packet.dts):
                            self._keyframes[entry] = pts
                        break
            if found is not None:
                return found
        return None

    def _index_entry(self, time: int) -> int | None:
        """Return the time in the index of the last keyframe up to a time; None if there is none."""
        if self._is_unindexed:
            return None
        index = self._source.stream.index_entries
        place = index.search_timestamp(time)
        return index[place].timestamp if place >= 0 else None

    def _open(self) -> None:
        self._source = open_stream(self.location)
        self._is_unindexed = self._source.container.format.name in _UNINDEXED_FORMATS
        self._skips = _marks_non_reference_frames(self._source.stream.codec_context)

    def _find_first_pts(self) -> int:
        packets = self._source.packets()
        first = next(packets)
        self._source.check_unpacked(first)
        context = self._source.stream.codec_context
        self.is_turned_by_message = has_orientation_message(
            bytes(first), context.name, context.extradata or b""
        )
        pts = first.pts
        if first.size and first.is_keyframe and not first.is_discard and pts is not None:
            for packet in packets:
                if packet.pts is None or packet.pts < pts:
                    break
                if packet.dts is not None and packet.dts >= pts:
                    return pts
        # The stream starts within a group of pictures, so only decoding shows which frame is first.
        self._reopen()
        frame = next(self._decoded(self._source.packets()), None)
        if frame is None:
            raise BadClipError(
                self.location, "has no frame that can be decoded", "copy it again or remove it"
            )
        return self.pts_of(frame)

    def _find_index_offset(self) -> int:
        """Return the offset from index times to pts, as some formats index decoding times (dts)."""
        if self._is_unindexed:
            return 0
        # FFmpeg reads the index of a Matroska file at the first seek.
        self._source.container.seek(self.first_pts, stream=self._source.stream)
        index = self._source.stream.index_entries
        return max(self.first_pts - index[0].timestamp, 0) if len(index) else 0

    def _reopen(self) -> None:
        self._source.close()
        self._open()

    def _run_end(self, times: Sequence[int], start: int) -> int:
        """Return the index of the first time after `start` that a seek reaches faster."""
        index = self._source.stream.index_entries
        for place in range(start + 1, len(times)):
            before, after = times[place - 1], times[place]
            if self._is_unindexed:
                is_far = self._duration(after - before) > _UNINDEXED_SECONDS
            else:
                keyframe = index.search_timestamp(after - self._index_offset)
                is_far = keyframe > index.search_timestamp(before - self._index_offset)
            if is_far:
                return place
        return len(times)

    def _decode_planned(self, times: Sequence[int]) -> Iterator[VideoFrame]:
        """Yield the frames of a run of times, skipping frames that no requested frame refers to.

        Raises:
            UnplannableError: The decoder does not return the planned frame.
        """
        plan = PacketPlan(times)
        requested: list[PlannedPacket] = []
        left = len(times)
        packets = next(self._seek_back(times[0]))
        context = self._source.stream.codec_context
        for packet in packets:
            plan.add(packet)
            for planned in plan.planned():
                if planned.num_times:
                    insort(requested, planned, key=attrgetter("pts"))
                    left -= planned.num_times
                if self._skips:
                    context.skip_frame = "DEFAULT" if planned.num_times else "NONREF"
                yield from self._match(planned.packet.decode(), requested, times)
                if not left:
                    # Flush the frames that the decoder has buffered.
                    yield from self._match(context.decode(None), requested, times)
                    break
            if not left:
                break
        if requested or left:
            raise UnplannableError

    def _match(
        self, frames: list[VideoFrame], requested: list[PlannedPacket], times: Sequence[int]
    ) -> Iterator[VideoFrame]:
        """Yield the requested ones of some decoded frames, each once per time, and dequeue them."""
        for frame in frames:
            self._damage.see(frame)
            if not requested:
                continue
            pts, first = self.pts_of(frame), requested[0]
            if pts > first.pts:
                raise UnplannableError
            if pts == first.pts:
                requested.pop(0)
                if first.is_last:
                    self._check_end(frame, times[-1])
                self._damage.use(frame)
                yield from repeat(frame, first.num_times)

    def _decode_all(self, times: Sequence[int]) -> Iterator[VideoFrame]:
        """Yield the frames of a run of times by decoding every frame from a keyframe on."""
        for packets in self._seek_back(times[0]):
            self._source.stream.codec_context.skip_frame = "DEFAULT"
            frames = self._decoded(packets)
            shown = next(frames, None)
            if shown is not None and self.pts_of(shown) <= times[0]:
                break
        else:
            raise self._no_frame(times[0], "its first frame starts later")
        following = next(frames, None)
        for time in times:
            while following is not None and self.pts_of(following) <= time:
                shown, following = following, next(frames, None)
            if following is None:
                self._check_end(shown, time)
            self._damage.use(shown)
            yield shown

    def _seek_back(self, pts: int) -> "Iterator[Iterator[Packet[VideoStream]]]":
        """Yield packets from a keyframe shown at or before `pts`, then from ever earlier ones."""
        # Without an index, the first keyframe after the place of a seek may be later than `pts`.
        back = self._ticks_per_second if self._is_unindexed else 0
        while pts - back >= self.first_pts:
            self._source.container.seek(pts - back, stream=self._source.stream)
            packets = self._source.packets()
            first = next(each for each in packets if each.is_keyframe or not each.size)
            if first.pts is not None and first.pts <= pts:
                self._damage.restart(first.pts)
                yield chain([first], packets)
            # Where an index lists decoding times, a seek to them may lead to a later keyframe.
            back = (
                self._index_offset
                if back < self._index_offset
                else 2 * back + self._ticks_per_second
            )
        self._reopen()
        self._damage.restart(self.first_pts)
        yield self._source.packets()

    def _decoded(self, packets: "Iterator[Packet[VideoStream]]") -> Iterator[VideoFrame]:
        for packet in packets:
            for frame in packet.decode():
                self._damage.see(frame)
                yield frame

    def _check_end(self, last: VideoFrame, pts: int) -> None:
        shown_seconds = self._duration(last.duration or 0)
        end_seconds = self.seconds(self.pts_of(last)) + max(shown_seconds, 2 / self.header.fps)
        if self.seconds(pts) > end_seconds:
            raise self._no_frame(pts, f"its last frame ends at {end_seconds:.2f} s")

    def _duration(self, ticks: int) -> float:
        """Return a number of ticks in seconds, rounded once."""
        # Arithmetic of fractions would cost as much as a seek.
        tick = self._source.tick_seconds
        return ticks * tick.numerator / tick.denominator

    def _damaged(self, pts: int) -> BadClipError:
        reason = f"has a damaged frame at {self.seconds(pts):.2f} s"
        return BadClipError(self.location, reason, COPY_AGAIN)

    def _no_frame(self, pts: int, reason: str) -> BadClipError:
        return BadClipError(
            self.location,
            f"has no frame at {self.seconds(pts):.2f} s, {reason}",
            COPY_AGAIN,
        )


def _marks_non_reference_frames(context: VideoCodecContext) -> bool:
    """Return whether the codec marks non-reference frames, so that the decoder can skip them.

    H.264 marks them (nal_ref_idc). H.265 marks them only within a temporal sublayer, so the stream
    must have a single one; bits 3 to 5 of byte 21 of the decoder configuration record give their
    number (ISO/IEC 14496-15, 8.3.3.1).
    """
    if context.name == "hevc":
        setup = context.extradata or b""
        return len(setup) > 21 and setup[0] == 1 and setup[21] >> 3 & 7 == 1
    return context.name == "h264"
