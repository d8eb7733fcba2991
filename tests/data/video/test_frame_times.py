"""Frame times come from packets: uneven, unstated, late, cut, joined and reordered ones."""

import json
import struct
from contextlib import suppress
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext

from midway.data.clip import BadClipError
from midway.data.clips.find import find_clips
from midway.data.clips.index import INDEX_NAME, read_index
from midway.data.files import find_files
from midway.data.prepare.decode import VideoSource, decode_at_rate
from midway.data.prepare.index import build_index
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.video.decoder import FrameDecoder
from midway.data.video.file import VideoFile
from midway.data.video.frame_times import pack_times, read_frame_seconds, read_timing, unpack_times
from midway.data.views.pair_crops import ViewsConfig
from midway.data.workers.pool import Reading
from midway.errors import MidwayError
from tests.data.video.made_videos import (
    boxes,
    even_times,
    number_of,
    write_video,
)

PHONE = [
    *np.arange(20) / 30,
    *(20 / 30 + np.arange(10) / 8),
    *(20 / 30 + 10 / 8 + 3 + np.arange(20) / 60),
]
"""30 fps, 8 fps in the dark, a pause of 3 s, 60 fps."""


def numbers_at(path: Path, seconds: list[float]) -> list[int]:
    with VideoFile(str(path)) as video:
        return [number_of(frame.image) for frame in video.frames_at(seconds)]


@pytest.mark.parametrize("name", ["phone.mp4", "phone.mov", "phone.mkv", "phone.ts"])
def test_uneven_frames_keep_their_times_and_pairs_their_gaps(tmp_path, name):
    write_video(tmp_path / name, PHONE)
    found = find_clips(str(tmp_path), fps=30, gap_seconds=(0.5, 1.0))
    (clip,) = found.clips
    np.testing.assert_allclose(clip.frame_seconds, PHONE, atol=2e-3)
    dataset = ClipDataset(found, ClipsConfig(root=str(tmp_path)), ViewsConfig().spec(), seed=0)
    for epoch in range(60):
        (sample,) = dataset.read(epoch, 0, Reading({}, lambda clip: None))
        source, target = (number_of(image) for image in sample.regions["motion"])
        assert sample.seconds == pytest.approx((PHONE[source], PHONE[target]), abs=2e-3)
        assert 0.48 < sample.seconds[1] - sample.seconds[0] < 1.02


def test_evenly_timed_videos_are_described_by_duration_and_rate(tmp_path):
    for name in ("a.mp4", "a.mkv", "a.ts", "a.flv"):
        timing = read_timing(str(write_video(tmp_path / name, even_times(40))))
        assert (timing.frame_times, timing.fps) == (b"", 10)
        assert timing.duration_seconds == pytest.approx(3.9, abs=1e-3)


def test_a_packet_is_read_only_where_the_index_of_an_mp4_is_uneven(tmp_path, monkeypatch):
    even = write_video(tmp_path / "even.mp4", even_times(40))
    uneven = write_video(tmp_path / "uneven.mp4", PHONE)

    def refuse(*read: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("midway.data.video.frame_times._packet_seconds", refuse)
    assert read_timing(str(even)).duration_seconds == pytest.approx(3.9)
    with pytest.raises(ZeroDivisionError):
        read_timing(str(uneven))


def test_packed_times_are_those_that_were_packed_and_damage_is_told():
    seconds = np.cumsum([0, 0.1, 1 / 90_000, 5000.0, 1 / 30])
    packed = pack_times(seconds)
    np.testing.assert_allclose(unpack_times(packed), seconds, atol=1e-6)
    for damaged in (packed[:-2], b"", b"no times"):
        with pytest.raises(MidwayError, match=r"damaged .*; write the index again"):
            unpack_times(damaged)


def test_an_index_has_the_times_of_uneven_videos_alone(tmp_path):
    write_video(tmp_path / "uneven.mkv", PHONE)
    write_video(tmp_path / "even.mkv", even_times(40))
    build_index(str(tmp_path), num_workers=0, timeout_seconds=60)
    lines = [json.loads(line) for line in (tmp_path / INDEX_NAME).read_text().splitlines()]
    assert ["frame_times" in line for line in lines[1:]] == [
        line["name"] == "uneven.mkv" for line in lines[1:]
    ]
    records = read_index(str(tmp_path / INDEX_NAME))[1]
    files = {file.name: file for file in find_files(str(tmp_path))}
    clip = records["uneven.mkv"].clip(files["uneven.mkv"])
    np.testing.assert_allclose(clip.frame_seconds, PHONE, atol=2e-3)


def test_an_index_without_frame_times_opens_and_is_read_anew_when_rebuilt(tmp_path, caplog):
    write_video(tmp_path / "uneven.mkv", PHONE)
    index = tmp_path / INDEX_NAME
    build_index(str(tmp_path), num_workers=0, timeout_seconds=60)
    head, record = map(json.loads, index.read_text().splitlines())
    del head["frame_times"], record["frame_times"]
    index.write_text(f"{json.dumps(head)}\n{json.dumps(record)}\n")
    assert read_index(str(index))[1]["uneven.mkv"].frame_times == ""
    found = find_clips(str(tmp_path), fps=30, gap_seconds=(0.5, 1.0))
    assert "was written without the times of frames" in caplog.text
    dataset = ClipDataset(found, ClipsConfig(root=str(tmp_path)), ViewsConfig().spec(), seed=0)
    for epoch in range(20):
        # No pair is taken whose frames are not the promised time apart.
        with suppress(MidwayError):
            (sample,) = dataset.read(epoch, 0, Reading({}, lambda clip: None))
            assert 0.3 < sample.seconds[1] - sample.seconds[0] < 1.2
    assert build_index(str(tmp_path), num_workers=0, timeout_seconds=60).reused == 0
    assert read_index(str(index))[1]["uneven.mkv"].frame_times


def with_sound(path: Path, *, late: float, sound_seconds: float) -> Path:
    """40 frames at 10 Hz that start `late` seconds after the start of a silent sound."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        sound = container.add_stream("aac", rate=16_000)
        assert isinstance(video, av.VideoStream)
        assert isinstance(sound, av.AudioStream)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        for number in range(40):
            picture = np.full((48, 64, 3), 4 * number + 8, np.uint8)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number + round(10 * late), Fraction(1, 10)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        samples = np.zeros((1, round(16_000 * sound_seconds)), np.float32)
        silence = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
        silence.sample_rate, silence.pts = 16_000, 0
        container.mux(sound.encode(silence))
        container.mux(sound.encode(None))
    return path


def without_tags(path: Path) -> Path:
    path.write_bytes(path.read_bytes().replace(b"DURATION", b"DURATIOX"))
    return path


def no_length(folder: Path) -> Path:
    return write_video(
        folder / "live.webm", even_times(40), codec="libvpx-vp9", options={"live": "1"}
    )


def half_length(folder: Path) -> Path:
    """An mp4 that states half its length in all of its headers."""
    path = write_video(folder / "lies.mp4", even_times(40))
    data = bytearray(path.read_bytes())
    for kind, start, _ in list(boxes(bytes(data))):
        place = {b"mvhd": 24, b"tkhd": 28, b"mdhd": 24}.get(kind)
        if place:
            (length,) = struct.unpack(">I", data[start + place : start + place + 4])
            data[start + place : start + place + 4] = struct.pack(">I", length // 2)
    path.write_bytes(data)
    return path


ENDS = {
    "flash": lambda folder: write_video(folder / "b.flv", even_times(40)),
    "late in Matroska": lambda folder: with_sound(folder / "a.mkv", late=0.2, sound_seconds=4),
    "very late in Matroska": lambda folder: with_sound(folder / "a.mkv", late=2, sound_seconds=4),
    "longer sound, no tags": lambda folder: without_tags(
        with_sound(folder / "a.mkv", late=0, sound_seconds=7)
    ),
    "longer sound in mp4": lambda folder: with_sound(folder / "a.mp4", late=0, sound_seconds=7),
    "no length": no_length,
    "half the length": half_length,
}


@pytest.mark.parametrize("make", ENDS.values(), ids=ENDS)
def test_the_last_frame_is_the_last_one_that_packets_have(tmp_path, make):
    path = make(tmp_path)
    (clip,) = find_clips(str(path), fps=30, gap_seconds=(0.5, 1.0)).clips
    assert len(clip.frame_seconds) == 40
    assert numbers_at(path, [float(clip.frame_seconds[-1]) + 0.05, 0.05]) == [39, 0]


@pytest.mark.parametrize("make", ENDS.values(), ids=ENDS)
def test_stores_have_the_same_last_frame(tmp_path, make):
    source = VideoSource("a", str(make(tmp_path)))
    frames = list(decode_at_rate(source, fps=10, short_side=480))
    assert [number_of(frame.image) for frame in frames] == list(range(40))


def test_a_transport_stream_cut_in_a_group_ends_at_its_last_frame(tmp_path):
    path = write_video(tmp_path / "whole.ts", even_times(60), settings="bframes=3:b-adapt=0")
    data = path.read_bytes()
    path.write_bytes(data[: len(data) * 2 // 3 // 188 * 188])
    seconds = read_frame_seconds(str(path))
    assert 20 < len(seconds) < 60
    with VideoFile(str(path)) as video:
        frames = list(video.frames_in_order(seconds[:-1].tolist()))
    assert [number_of(frame.image) for frame in frames] == (10 * seconds[:-1]).round().tolist()


def test_a_file_that_misses_its_end_is_refused(tmp_path):
    path = write_video(tmp_path / "cut.mkv", even_times(60))
    data = path.read_bytes()
    path.write_bytes(data[: data.rindex(b"\x1f\x43\xb6\x75")])
    with pytest.raises(BadClipError, match=r"cut\.mkv: ends at .* s, but its header states 5\.90"):
        read_timing(str(path))


def joined(folder: Path, start: float) -> Path:
    """Two recordings in one transport stream, the second from `start` on."""
    first = write_video(folder / "first.ts", even_times(20))
    second = write_video(folder / "second.ts", [start + seconds for seconds in even_times(20)])
    path = folder / "joined.ts"
    path.write_bytes(first.read_bytes() + second.read_bytes())
    first.unlink()
    second.unlink()
    return path


def test_pairs_stay_within_the_parts_of_a_recording_whose_clock_jumps(tmp_path):
    path = joined(tmp_path, 1000)
    found = find_clips(str(tmp_path), fps=30, gap_seconds=(0.5, 1.0))
    (clip,) = found.clips
    start = clip.frame_seconds[20]
    assert start == pytest.approx(1000, abs=0.3)
    expected = [*even_times(20), *(start + np.array(even_times(20)))]
    np.testing.assert_allclose(clip.frame_seconds, expected, atol=1e-3)
    assert numbers_at(path, [1.95, start + 0.05, start + 1.95]) == [19, 0, 19]
    dataset = ClipDataset(found, ClipsConfig(root=str(tmp_path)), ViewsConfig().spec(), seed=0)
    parts = set()
    for epoch in range(30):
        (sample,) = dataset.read(epoch, 0, Reading({}, lambda clip: None))
        assert 0.45 < sample.seconds[1] - sample.seconds[0] < 1.05
        parts.add(sample.seconds[0] > 500)
    assert parts == {False, True}


def test_a_clock_that_starts_again_is_refused(tmp_path):
    path = joined(tmp_path, 0)
    with pytest.raises(
        BadClipError, match=r"joined\.ts: has decreasing frame times after 1\..*re-"
    ):
        read_timing(str(path))


def in_decoding_order(source: Path, target: Path) -> Path:
    """Copy a video so that every packet is shown when it is decoded."""
    with av.open(str(source)) as old, av.open(str(target), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.size and packet.dts is not None:
                packet.stream, packet.pts = stream, packet.dts
                new.mux(packet)
    return target


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video", "mpeg4", "libx265"])
def test_times_in_the_order_of_decoding_are_refused(tmp_path, codec):
    settings = "bframes=2:b-adapt=0" if codec.startswith("libx") else ""
    times = even_times(40, 25)
    source = write_video(
        tmp_path / "a.mp4", times, codec=codec, settings=settings, bf=2, rate=25, ticks=25
    )
    assert len(read_frame_seconds(str(source))) == 40
    path = in_decoding_order(source, tmp_path / "b.mp4")
    with pytest.raises(BadClipError, match=r"b\.mp4: has wrong times.*; re-encode it"):
        read_timing(str(path))


def test_packed_b_frames_are_refused_and_unpacked_ones_are_read(tmp_path):
    path = write_video(
        tmp_path / "a.avi", even_times(40, 25), codec="mpeg4", bf=2, rate=25, ticks=25
    )
    data = path.read_bytes()
    # User data of the encoder, which announces the packing.
    start = data.index(b"\x00\x00\x01\xb2Lavc")
    end = data.index(b"\x00\x00\x01", start + 4)
    text = b"DivX503b1393p"[: end - start - 4].ljust(end - start - 4, b"\x00")
    assert len(read_timing(str(path)).frame_times) == 0
    path.write_bytes(data[: start + 4] + text + data[end:])
    for open_or_read in (read_timing, VideoFile):
        with pytest.raises(BadClipError, match=r"a\.avi: has packed B-frames.*unpack_bframes"):
            open_or_read(str(path))


@pytest.mark.parametrize(("codec", "name"), [("mpeg2video", "a.mpg"), ("libx264", "a.ts")])
def test_a_bare_stream_is_named_as_one(tmp_path, codec, name):
    source = write_video(
        tmp_path / "source.mp4", even_times(40, 25), codec=codec, rate=25, ticks=25
    )
    with av.open(str(source)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        if codec == "libx264":
            unpack = BitStreamFilterContext("h264_mp4toannexb", container.streams.video[0])
            packets = [each for packet in packets for each in unpack.filter(packet)]
    (tmp_path / name).write_bytes(b"".join(map(bytes, packets)))
    with pytest.raises(BadClipError, match=r"is a bare video stream .*; re-encode it"):
        read_timing(str(tmp_path / name))


def test_times_are_those_of_the_first_frame_that_can_be_decoded(tmp_path):
    path = write_video(tmp_path / "made.ts", even_times(60), settings="open-gop=1:bframes=3")
    late = tmp_path / "late.ts"
    data = path.read_bytes()
    late.write_bytes(data[len(data) // 4 // 188 * 188 :])
    seconds = read_frame_seconds(str(late))
    decoder = FrameDecoder(str(late))
    assert seconds[0] == 0
    assert decoder.seconds(decoder.first_pts + 9000) == pytest.approx(seconds[1])
    decoder.close()
