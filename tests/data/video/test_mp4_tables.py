"""Small mp4 files cannot ask for much memory or time; sound ones are read as before."""

import struct

import pytest

from midway.data.clip import BadClipError
from midway.data.video.file import VideoFile
from midway.data.video.frame_times import read_timing
from tests.data.video.made_videos import boxes, even_times, write_video

NUM_FRAMES = 12
AROUND = (b"moov", b"trak", b"mdia", b"minf", b"stbl", b"moof", b"traf")


def box(kind, *content):
    return struct.pack(">I4s", 8 + len(b"".join(content)), kind) + b"".join(content)


def replaced(data, kind, new):
    """The first box of a kind replaced, and the sizes of those around it adapted."""
    changed = bytearray(data)
    [start, end] = next((start, end) for each, start, end in boxes(data) if each == kind)
    for each, begin, stop in boxes(data):
        if each in AROUND and begin < start and end <= stop:
            changed[begin : begin + 4] = struct.pack(">I", stop - begin + len(new) - (end - start))
    changed[start:end] = new
    return bytes(changed)


def with_frames(data, count):
    """As many frames of one byte each."""
    data = replaced(data, b"stsz", box(b"stsz", struct.pack(">III", 0, 1, count)))
    data = replaced(data, b"stsc", box(b"stsc", struct.pack(">IIIII", 0, 1, 1, count, 1)))
    return replaced(data, b"stts", box(b"stts", struct.pack(">IIII", 0, 1, count, 512)))


def with_edits(data, count):
    edits = struct.pack(">IiI", 1000, 0, 1 << 16) * count
    return replaced(data, b"edts", box(b"edts", box(b"elst", struct.pack(">II", 0, count), edits)))


@pytest.fixture
def video(tmp_path):
    return write_video(tmp_path / "made.mp4", even_times(NUM_FRAMES), bf=0)


@pytest.mark.parametrize(
    ("damage", "stated"),
    [
        (lambda data: with_frames(data, 28_000_000), "states 28,000,000 frames and 1 edit in "),
        (
            lambda data: with_edits(with_frames(data, 2_000), 9_000),
            "2,000 frames and 9,000 edits in ",
        ),
        (lambda data: with_edits(data, 100_000), "has 100,000 edits; "),
        # The number that a list of edits states does not count, only its size.
        (
            lambda data: with_edits(data, 100_000).replace(
                struct.pack(">I", 100_000) + struct.pack(">I", 1000), struct.pack(">II", 1, 1000)
            ),
            "has 100,000 edits; ",
        ),
    ],
)
def test_more_frames_than_a_file_can_have_are_refused(video, damage, stated):
    video.write_bytes(damage(video.read_bytes()))
    for read in (read_timing, VideoFile):
        with pytest.raises(BadClipError, match=stated):
            read(str(video))


def test_more_frames_of_a_fragment_than_bytes_are_refused(tmp_path):
    options = {"movflags": "frag_keyframe+empty_moov"}
    path = write_video(tmp_path / "made.mp4", even_times(NUM_FRAMES), bf=0, options=options)
    assert read_timing(str(path)).fps == pytest.approx(10)
    data = bytearray(path.read_bytes())
    place = data.index(b"trun") + 8
    data[place : place + 4] = struct.pack(">I", 2**31)
    path.write_bytes(data)
    with pytest.raises(BadClipError, match="states 2,147,483,648 frames"):
        read_timing(str(path))


def test_a_few_edits_are_read(video):
    before = read_timing(str(video))
    video.write_bytes(with_edits(video.read_bytes(), 1))
    assert read_timing(str(video)).fps == before.fps
