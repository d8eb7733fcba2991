"""Headers of videos, and every kind of file that is refused."""

import os
import struct
from pathlib import Path

import av
import numpy as np
import pytest
from av.bitstream import BitStreamFilterContext
from av.stream import Disposition

from midway.data.clip import BadClipError
from midway.data.video.file import VideoFile
from midway.data.video.frame_times import read_timing
from tests.data.video.made_videos import (
    boxes,
    corners,
    cut_short,
    encrypt,
    even_times,
    write_sound,
    write_video,
)


def test_timing_is_that_of_the_first_video_stream(tmp_path):
    timing = read_timing(str(write_video(tmp_path / "made.mp4", even_times(25))))
    assert timing.duration_seconds == pytest.approx(2.4)
    assert timing.fps == 10


def write_streams(
    path: Path, sizes: list[tuple[int, int]], *, default: int | None, still_first: bool = False
) -> Path:
    """Several video streams, of which one is marked as the default; the first may be a picture."""
    with av.open(str(path), "w") as container:
        streams = []
        for number, (height, width) in enumerate(sizes):
            is_still = still_first and number == 0
            stream = container.add_stream("mjpeg" if is_still else "libx264", rate=10)
            assert isinstance(stream, av.VideoStream)
            stream.width, stream.height = width, height
            stream.pix_fmt = "yuvj420p" if is_still else "yuv420p"
            stream.disposition = Disposition.default if number == default else Disposition(0)
            streams.append((stream, 1 if is_still else 20))
        for stream, count in streams:
            for number in range(count):
                picture = np.full((stream.height, stream.width, 3), 4 * number + 8, np.uint8)
                frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
                frame.pts = number
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("name", ["two.mp4", "two.mkv", "two.ts"])
def test_the_default_stream_is_read_else_the_largest(tmp_path, name):
    sizes = [(48, 64), (96, 128)]
    marked = [1, 0] if name != "two.ts" else [None]
    for default in marked:
        path = write_streams(tmp_path / name, sizes, default=default)
        with VideoFile(str(path)) as video:
            assert (video.height, video.width) == sizes[1 if default is None else default]
        assert read_timing(str(path)).notes == ("streams",)


@pytest.mark.parametrize("name", ["still.mp4", "still.mkv"])
def test_a_still_picture_is_not_taken_for_the_video(tmp_path, name):
    sizes = [(96, 128), (48, 64)]
    path = write_streams(tmp_path / name, sizes, default=0, still_first=True)
    with VideoFile(str(path)) as video:
        assert (video.height, video.width) == (48, 64)
        assert len(video.frame_seconds) == 20


@pytest.mark.parametrize("matrix", [8, 10, 11, 12, 13, 14, 15])
def test_colours_of_a_matrix_that_is_not_converted_are_read_as_unspecified(tmp_path, matrix):
    plain = write_video(tmp_path / "plain.mp4", even_times(5), picture=corners)
    odd_path = tmp_path / "odd.mp4"
    # The same packets, because x264 does not always compress alike on a loaded machine.
    with av.open(str(plain)) as source, av.open(str(odd_path), "w") as target:
        stream = source.streams.video[0]
        labelled = target.add_stream_from_template(stream)
        label = BitStreamFilterContext(
            f"h264_metadata=matrix_coefficients={matrix}", stream, labelled
        )
        for packet in [*source.demux(stream), None]:
            for found in label.filter(packet):
                found.stream = labelled
                target.mux(found)
    with av.open(str(odd_path)) as written:
        assert written.streams.video[0].codec_context.colorspace == matrix
    with VideoFile(str(plain)) as video, VideoFile(str(odd_path)) as odd:
        np.testing.assert_array_equal(
            odd.frames_at([0.2])[0].image, video.frames_at([0.2])[0].image
        )


def test_hdr_interlacing_and_pixels_that_are_not_square_are_noted(tmp_path, caplog):
    cases = {"hdr": "transfer=arib-std-b67", "interlaced": "tff=1", "pixels": "sar=4/3", "": ""}
    for note, settings in cases.items():
        path = write_video(tmp_path / f"{note}.ts", even_times(20), settings=settings)
        assert read_timing(str(path)).notes == ((note,) if note else ())
        with VideoFile(str(path)) as video:
            video.warn()
    assert [message.split(": ", 1)[1][:6] for message in caplog.messages] == [
        "HDR co",
        "interl",
        "pixels",
    ]


def test_titles_in_another_encoding_do_no_harm(tmp_path):
    path = write_video(tmp_path / "titled.mp4", even_times(5), title="caffe")
    data = path.read_bytes()
    assert data.count(b"caffe") == 1
    path.write_bytes(data.replace(b"caffe", b"caf\xe9 "))
    assert read_timing(str(path)).duration_seconds == pytest.approx(0.4)


def text_file(folder: Path) -> Path:
    path = folder / "bad.mp4"
    path.write_text("no video at all\n" * 50)
    return path


def empty_file(folder: Path) -> Path:
    path = folder / "bad.mp4"
    path.touch()
    return path


def folder_of_that_name(folder: Path) -> Path:
    path = folder / "bad.mp4"
    path.mkdir()
    return path


def pipe(folder: Path) -> Path:
    path = folder / "bad.mp4"
    os.mkfifo(path)
    return path


def playlist(folder: Path) -> Path:
    write_video(folder / "other.ts", even_times(20))
    path = folder / "bad.mp4"
    path.write_text("#EXTM3U\n#EXT-X-TARGETDURATION:2\n#EXTINF:2,\nother.ts\n#EXT-X-ENDLIST\n")
    return path


def huge_pictures(folder: Path) -> Path:
    path = write_video(folder / "bad.avi", even_times(20), codec="rawvideo")
    data, size = path.read_bytes(), struct.pack("<III", 40, 64, 48)
    assert data.count(size) == 1
    path.write_bytes(data.replace(size, struct.pack("<III", 40, 20_000, 20_000)))
    return path


def endless(folder: Path) -> Path:
    path = write_video(folder / "bad.mkv", even_times(60))
    data = path.read_bytes()
    assert data.count(b"00:00:06.000000000") == 1
    path.write_bytes(data.replace(b"00:00:06.000000000", b"999999:00:00.00000"))
    return path


BAD_FILES = {
    "text": (text_file, "cannot be read as video"),
    "empty": (empty_file, "is empty"),
    "missing": (
        lambda folder: folder / "bad.mp4",
        "cannot be read as video (No such file or directory)",
    ),
    "truncated": (
        lambda folder: cut_short(write_video(folder / "bad.mp4", even_times(40)), 0.7),
        "cannot be read as video",
    ),
    "sound and a cover": (lambda folder: write_sound(folder / "bad.mp4"), "has no video stream"),
    "folder": (folder_of_that_name, "is not a regular file"),
    "pipe": (pipe, "is not a regular file"),
    "playlist": (playlist, "cannot be read as video"),
    "encrypted": (
        lambda folder: encrypt(write_video(folder / "bad.mp4", even_times(20))),
        "is encrypted",
    ),
    "huge pictures": (huge_pictures, "has no frame size in its header, or one of more than"),
    "endless": (endless, "states a duration of 3.6e+09 s at 10 frames per second"),
    "no times": (
        lambda folder: write_video(folder / "bad.avi", even_times(40)),
        "has no timestamps for its frames",
    ),
    "one frame": (lambda folder: write_video(folder / "bad.mp4", [0.0]), "has a single frame"),
    "one frame, Matroska": (
        lambda folder: write_video(folder / "bad.mkv", [0.0]),
        "has a single frame",
    ),
}


@pytest.mark.parametrize("open_or_read", [VideoFile, read_timing])
@pytest.mark.parametrize(("make", "reason"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_named_with_reason_and_remedy(tmp_path, capfd, make, reason, open_or_read):
    path = make(tmp_path)
    with pytest.raises(BadClipError) as raised:
        open_or_read(str(path))
    text = str(raised.value)
    assert text.startswith(f"{path}: {reason}")
    assert "; " in text
    assert "\n" not in text
    assert capfd.readouterr() == ("", "")


def test_a_read_that_does_not_come_back_is_given_up(tmp_path, monkeypatch):
    path = write_video(tmp_path / "slow.mp4", even_times(20))
    monkeypatch.setattr("midway.data.video.header.TIMEOUT_SECONDS", 0)
    with pytest.raises(BadClipError, match=r"slow\.mp4: returned no data for 0 s; check the disk"):
        read_timing(str(path))


def test_pictures_beyond_the_limit_are_refused_whatever_the_header_says(tmp_path, monkeypatch):
    path = write_video(tmp_path / "large.mp4", even_times(20))
    monkeypatch.setattr("midway.data.video.header.MAX_PIXELS", 64 * 48 - 1)
    with pytest.raises(BadClipError, match=r"large\.mp4: has no frame size.* 3071 pixels"):
        read_timing(str(path))
    data = bytearray(path.read_bytes())
    [entry] = [start for kind, start, _ in boxes(data) if kind == b"avc1"]
    data[entry + 32 : entry + 36] = struct.pack(">HH", 16, 16)
    path.write_bytes(data)
    with VideoFile(str(path)) as video, pytest.raises(BadClipError, match=r"large\.mp4: cannot"):
        video.frames_at([1])
