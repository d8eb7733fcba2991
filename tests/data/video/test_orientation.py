"""Pictures of a turned camera come out upright."""

import struct

import av
import numpy as np
import pytest

from midway.data.clip import BadClipError
from midway.data.video.file import VideoFile
from tests.data.video.made_videos import corners, even_times, turn_display, write_video


@pytest.mark.parametrize(
    ("matrix", "shown"),
    [
        ((1, 0, 0, 1), corners(0)),
        ((0, 1, -1, 0), np.rot90(corners(0), -1)),
        ((-1, 0, 0, -1), np.rot90(corners(0), 2)),
        ((0, -1, 1, 0), np.rot90(corners(0), 1)),
        ((-1, 0, 0, 1), np.fliplr(corners(0))),
        ((0, 1, 1, 0), corners(0).swapaxes(0, 1)),
    ],
    ids=["upright", "90", "180", "270", "mirrored", "transposed"],
)
def test_rotation_metadata_turns_every_frame_and_the_size(tmp_path, matrix, shown):
    path = write_video(tmp_path / "turned.mp4", even_times(4), picture=corners)
    turn_display(path, *matrix)
    with VideoFile(str(path)) as video:
        assert (video.height, video.width) == shown.shape[:2]
        for frame in video.frames_at(even_times(4)):
            assert frame.image.shape == shown.shape
            middles = np.s_[12::24, 16::32] if shown.shape[1] == 64 else np.s_[16::32, 12::24]
            np.testing.assert_allclose(
                frame.image[middles].astype(int), shown[middles].astype(int), atol=12
            )


def test_a_matrix_rounded_by_its_writer_turns_like_a_whole_one(tmp_path):
    path = write_video(tmp_path / "turned.mp4", even_times(4), picture=corners)
    turn_display(path, 0, 1, -1, 0)
    data = path.read_bytes()
    start = data.index(b"tkhd") + 44
    rounded = struct.pack(">5i", 0, 65535, 0, -65536, 1)
    path.write_bytes(data[:start] + rounded + data[start + 20 :])
    with VideoFile(str(path)) as video:
        image = video.frames_at([0.2])[0].image
    np.testing.assert_allclose(
        image[16::32, 12::24].astype(int), np.rot90(corners(0), -1)[16::32, 12::24], atol=12
    )


@pytest.mark.parametrize(("codec", "name"), [("h264", "mp4"), ("h264", "ts"), ("hevc", "mp4")])
def test_an_orientation_in_the_first_message_alone_turns_all_frames(tmp_path, codec, name):
    source = write_video(
        tmp_path / "source.mp4",
        even_times(8),
        picture=corners,
        gop=4,
        codec={"h264": "libx264", "hevc": "libx265"}[codec],
    )
    # Type 47, then horizontal and vertical flips and no rotation.
    flips = bytes([47, 3, 0b01100000, 0, 0b00000001, 0x80])
    message = (bytes([6]) if codec == "h264" else bytes([39 << 1, 1])) + flips
    path = tmp_path / f"turned.{name}"
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = new.add_stream_from_template(old.streams.video[0])
        for number, packet in enumerate(old.demux(video=0)):
            if packet.size:
                added = av.Packet(
                    struct.pack(">I", len(message)) * (number == 0)
                    + message * (number == 0)
                    + bytes(packet)
                )
                added.pts, added.dts, added.time_base = packet.pts, packet.dts, packet.time_base
                added.is_keyframe, added.stream = packet.is_keyframe, stream
                new.mux(added)
    with VideoFile(str(path)) as video:
        for frame in [*video.frames_at([0.7, 0.1]), *video.frames_at([0.5])]:
            np.testing.assert_allclose(
                frame.image[12::24, 16::32].astype(int),
                np.rot90(corners(0), 2)[12::24, 16::32],
                atol=12,
            )


def test_a_slanted_display_is_refused(tmp_path):
    path = write_video(tmp_path / "slanted.mp4", even_times(4))
    turn_display(path, 1, 1, -1, 1)
    slanted = r"slanted\.mp4: is rotated.*90 degrees; re-encode"
    with VideoFile(str(path)) as video, pytest.raises(BadClipError, match=slanted):
        video.frames_at([0])
