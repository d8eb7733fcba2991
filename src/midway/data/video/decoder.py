"""Decoded pictures of a video by presentation time, decoding no more than it takes.

Decoding is what costs. Of the pictures from one keyframe to the next only those are decoded that
were asked for or that those are built on, and the file is sought where that skips some.
"""

import math
from bisect import insort
from collections.abc import Iterator, Sequence
from itertools import chain, repeat

from av.packet import Packet
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from midway.data.clip import BadClipError
from midway.data.video.header import REMUX, open_stream
from midway.data.video.packet_plan import Decided, Lookahead, UnplannableError

# These formats say nowhere where their keyframes are: a seek lands at any picture.
_BLIND_FORMATS = frozenset(["mpegts", "mpeg", "ogg"])
_BLIND_SECONDS = 1.0


class PictureReader:
    """Pictures of an open video; times are pts, in ticks of the stream.

    What it gives depends on the file and on the times asked for at once, never on what was read
    before: every reading starts with a seek.

    Args:
        location: Path or URL.

    Raises:
        BadClipError: The file is no video, has a single frame or none that can be decoded.
        OSError: As `open_stream`.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self._open()
        try:
            self.timing = self._source.timing()
            self.tick_seconds = self._source.tick_seconds
            self.first_pts = self._find_first_pts()
            self._index_lead = self._find_index_lead()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the file."""
        self._source.close()

    def seconds(self, pts: int) -> float:
        """Time after the first frame."""
        return float((pts - self.first_pts) * self.tick_seconds)

    def pts_of(self, picture: VideoFrame) -> int:
        """When a picture is shown.

        Raises:
            BadClipError: It does not say.
        """
        if picture.pts is None:
            raise BadClipError(self.location, "has frames without times", REMUX)
        return picture.pts

    def pictures(self, times: Sequence[int]) -> Iterator[VideoFrame]:
        """For each time the last picture shown at or before it.

        Nothing else may be read until the iterator is done with.

        Args:
            times: Increasing, from `first_pts`.

        Raises:
            BadClipError: The stream ends before one of them, or has no times.
            FFmpegError: It is damaged.
        """
        start = 0
        while start < len(times):
            run = times[start : self._run_end(times, start)]
            given = 0
            try:
                for picture in self._planned(run):
                    given += 1
                    yield picture
            except UnplannableError:
                yield from self._by_decoding(run[given:])
            start += len(run)

    def _open(self) -> None:
        self._source = open_stream(self.location)
        self._is_blind = self._source.container.format.name in _BLIND_FORMATS
        self._skips = _marks_unreferenced(self._source.stream.codec_context)

    def _find_first_pts(self) -> int:
        packets = self._source.packets()
        first = next(packets)
        pts = first.pts
        if first.size and first.is_keyframe and not first.is_discard and pts is not None:
            for packet in packets:
                if packet.pts is None or packet.pts < pts:
                    break
                if packet.dts is not None and packet.dts >= pts:
                    return pts
        # The stream starts within a group of pictures: only a decoder knows what it can show.
        self._reopen()
        picture = next(self._decoded(self._source.packets()), None)
        if picture is None:
            raise BadClipError(self.location, "holds no picture", "copy it again or remove it")
        return self.pts_of(picture)

    def _find_index_lead(self) -> int:
        """Ticks from a time in the index to that of showing: some index times of decoding."""
        if self._is_blind:
            return 0
        # Matroska reads its index when it seeks for the first time.
        self._source.container.seek(self.first_pts, stream=self._source.stream)
        index = self._source.stream.index_entries
        return max(self.first_pts - index[0].timestamp, 0) if len(index) else 0

    def _reopen(self) -> None:
        self._source.close()
        self._open()

    def _run_end(self, times: Sequence[int], start: int) -> int:
        """Where to seek becomes cheaper than to decode on."""
        index = self._source.stream.index_entries
        for place in range(start + 1, len(times)):
            before, after = times[place - 1], times[place]
            if self._is_blind:
                is_far = (after - before) * self.tick_seconds > _BLIND_SECONDS
            else:
                keyframe = index.search_timestamp(after - self._index_lead)
                is_far = keyframe > index.search_timestamp(before - self._index_lead)
            if is_far:
                return place
        return len(times)

    def _planned(self, times: Sequence[int]) -> Iterator[VideoFrame]:
        """The pictures of a run of times, decoding no other that none of these is built on.

        Raises:
            UnplannableError: The next picture does not come out of the decoder.
        """
        ahead = Lookahead(times)
        asked: list[Decided] = []
        left = len(times)
        packets = next(self._starts(times[0]))
        context = self._source.stream.codec_context
        for packet in packets:
            ahead.add(packet)
            for decided in ahead.decided():
                if decided.times:
                    insort(asked, decided, key=_shown_at)
                    left -= decided.times
                if self._skips:
                    context.skip_frame = "DEFAULT" if decided.times else "NONREF"
                yield from self._asked(decided.packet.decode(), asked, times)
                if not left:
                    # What is in the decoder comes out without another packet.
                    yield from self._asked(context.decode(None), asked, times)
                    break
            if not left:
                break
        if asked or left:
            raise UnplannableError

    def _asked(
        self, pictures: list[VideoFrame], asked: list[Decided], times: Sequence[int]
    ) -> Iterator[VideoFrame]:
        for picture in pictures:
            if not asked:
                return
            pts, wanted = self.pts_of(picture), asked[0]
            if pts > wanted.pts:
                raise UnplannableError
            if pts == wanted.pts:
                asked.pop(0)
                if wanted.is_last:
                    self._check_end(picture, times[-1])
                yield from repeat(picture, wanted.times)

    def _by_decoding(self, times: Sequence[int]) -> Iterator[VideoFrame]:
        """The pictures of a run of times, from wherever decoding has to start for the first."""
        for packets in self._starts(times[0]):
            self._source.stream.codec_context.skip_frame = "DEFAULT"
            pictures = self._decoded(packets)
            shown = next(pictures, None)
            if shown is not None and self.pts_of(shown) <= times[0]:
                break
        else:
            raise self._no_frame(times[0], "its first starts later")
        following = next(pictures, None)
        for time in times:
            while following is not None and self.pts_of(following) <= time:
                shown, following = following, next(pictures, None)
            if following is None:
                self._check_end(shown, time)
            yield shown

    def _starts(self, pts: int) -> "Iterator[Iterator[Packet[VideoStream]]]":
        """Packets from a keyframe that is shown no later than `pts`; then from farther back."""
        second = math.ceil(1 / self.tick_seconds)
        # Looking for keyframes from where a blind seek lands finds a later one.
        back = second if self._is_blind else 0
        while pts - back >= self.first_pts:
            target = pts - back - self._index_lead
            self._source.container.seek(target, stream=self._source.stream)
            packets = self._source.packets()
            first = next(each for each in packets if each.is_keyframe or not each.size)
            if first.pts is not None and first.pts <= pts:
                yield chain([first], packets)
            back = 2 * back + second
        self._reopen()
        yield self._source.packets()

    @staticmethod
    def _decoded(packets: "Iterator[Packet[VideoStream]]") -> Iterator[VideoFrame]:
        for packet in packets:
            yield from packet.decode()

    def _check_end(self, last: VideoFrame, pts: int) -> None:
        shown_seconds = float((last.duration or 0) * self.tick_seconds)
        end_seconds = self.seconds(self.pts_of(last)) + max(shown_seconds, 2 / self.timing.fps)
        if self.seconds(pts) > end_seconds:
            raise self._no_frame(pts, f"its last ends at {end_seconds:.2f} s")

    def _no_frame(self, pts: int, reason: str) -> BadClipError:
        return BadClipError(
            self.location,
            f"holds no frame for {self.seconds(pts):.2f} s, {reason}",
            "copy it again, remux it or remove it",
        )


def _shown_at(decided: Decided) -> int:
    return decided.pts


def _marks_unreferenced(context: VideoCodecContext) -> bool:
    """Whether pictures that no other is built on are marked as such, so that they can be skipped.

    H.264 does (nal_ref_idc). H.265 does within a temporal sublayer, so there must be one only:
    ISO 14496-15, 8.3.3.1 keeps their number in bits 3 to 5 of byte 21 of the decoder's set-up.
    """
    if context.name == "hevc":
        setup = context.extradata or b""
        return len(setup) > 21 and setup[0] == 1 and setup[21] >> 3 & 7 == 1
    return context.name == "h264"
