"""Clips decoded once from start to end: which frames, which size, and what is no whole clip."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from midway.data.clip import BadClipError
from midway.data.clips.frame_folder import group_sequences
from midway.data.files import find_files
from midway.data.prepare.decode import VideoSource, decode_at_rate, scaled_size, select_at_rate
from midway.data.video.file import VideoFile
from tests.data.video.made_videos import (
    corners,
    cut_short,
    even_times,
    noise,
    number_of,
    turn_display,
    waves,
    write_frames,
    write_sound,
    write_video,
)


def frames_of(path, fps=10.0, short_side=480, threads=1):
    return list(
        decode_at_rate(
            VideoSource(path.name, str(path)), fps=fps, short_side=short_side, threads=threads
        )
    )


@given(
    st.lists(st.integers(1, 40), min_size=1, max_size=20), st.sampled_from([0.7, 1.0, 3.0, 12.5])
)
def test_the_frames_shown_at_a_rate_are_those_of_looking_up_every_time(steps, fps):
    times = [0.0, *(np.cumsum(steps) / 25).tolist()]
    asked = [number / fps for number in range(int(times[-1] * fps + 1e-6) + 1)]
    looked_up = [int(np.searchsorted(times, seconds + 1e-6, "right")) - 1 for seconds in asked]
    found = list(select_at_rate(zip(times, range(len(times)), strict=True), fps, location="clip"))
    assert found == [(times[place], place) for place in sorted(set(looked_up))]


def test_times_that_go_back_are_refused():
    with pytest.raises(BadClipError, match=r"clip: .*decreasing frame times after 0.20 s"):
        list(select_at_rate([(0.0, 0), (0.2, 1), (0.1, 2)], 10, location="clip"))


@pytest.mark.parametrize("name", ["made.mp4", "made.mkv", "made.ts"])
def test_a_video_gives_the_frames_that_are_found_by_time(tmp_path, name):
    path = write_video(tmp_path / name, even_times(31, 15), picture=waves)
    frames = frames_of(path)
    with VideoFile(str(path)) as video:
        expected = video.frames_at([number / 10 for number in range(21)])
    assert [frame.seconds for frame in frames] == [frame.seconds for frame in expected]
    for frame, same in zip(frames, expected, strict=True):
        np.testing.assert_array_equal(frame.image, same.image)


def test_threads_change_nothing(tmp_path):
    path = write_video(tmp_path / "made.mp4", even_times(40), picture=waves)
    for one, many in zip(frames_of(path), frames_of(path, threads=3), strict=True):
        assert one.seconds == many.seconds
        np.testing.assert_array_equal(one.image, many.image)


def test_scaling_is_that_of_an_antialiased_resize(tmp_path):
    path = write_video(tmp_path / "made.mp4", even_times(5), picture=waves)
    with VideoFile(str(path)) as video:
        full = video.frames_at([0.0])[0].image
    small = frames_of(path, short_side=24)[0].image
    assert small.shape == (24, 32, 3)
    smooth, rough = (
        np.asarray(Image.fromarray(full).resize((32, 24), kernel), int)
        for kernel in (Image.Resampling.BICUBIC, Image.Resampling.NEAREST)
    )
    assert np.abs(small - smooth).mean() < 1
    assert np.abs(small - rough).mean() > 5
    assert frames_of(path, short_side=97)[0].image.shape == full.shape


@pytest.mark.parametrize(
    ("width", "height", "size"),
    [(1280, 720, (853, 480)), (720, 1280, (480, 853)), (640, 480, (640, 480)), (99, 20, (99, 20))],
)
def test_the_short_side_shrinks_and_never_grows(width, height, size):
    assert scaled_size(width, height, 480) == size


def test_rotation_turns_the_small_pictures_too(tmp_path):
    path = write_video(tmp_path / "turned.mp4", even_times(4), picture=corners)
    turn_display(path, 0, 1, -1, 0)
    image = frames_of(path, short_side=24)[0].image
    assert image.shape == (32, 24, 3)
    upright = np.rot90(corners(0), -1)[1::2, 1::2]
    assert np.abs(image[4::16, 3::12].astype(int) - upright[4::16, 3::12]).max() < 40


def test_an_image_folder_gives_its_frames(tmp_path):
    write_frames(tmp_path, [f"{number:04}.png" for number in range(0, 60, 2)])
    (sequence,) = group_sequences(find_files(str(tmp_path)), fps=20)
    frames = list(decode_at_rate(sequence, fps=5, short_side=480))
    assert [number_of(frame.image) for frame in frames] == list(range(0, 30, 2))
    assert [frame.seconds for frame in frames] == pytest.approx([0.2 * k for k in range(15)])


def test_frames_of_two_sizes_are_refused(tmp_path):
    write_frames(tmp_path, ["0.png", "1.png"])
    Image.new("RGB", (30, 20)).save(tmp_path / "2.png")
    (sequence,) = group_sequences(find_files(str(tmp_path)), fps=10)
    with pytest.raises(BadClipError, match=r"changes its frame size at 0.20 s"):
        list(decode_at_rate(sequence, fps=10, short_side=480))


def test_what_is_no_whole_clip_is_named(tmp_path):
    whole = write_video(tmp_path / "cut.mkv", even_times(50), picture=noise)
    fast = write_video(
        tmp_path / "cut.mp4", even_times(50), picture=noise, options={"movflags": "faststart"}
    )
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    empty = tmp_path / "empty.mp4"
    empty.touch()
    reasons = Counter()
    for path in (
        cut_short(whole, 0.5),
        cut_short(fast, 0.5),
        text,
        empty,
        write_sound(tmp_path / "sound.mp4"),
        write_video(tmp_path / "one.mp4", [0.0]),
    ):
        with pytest.raises(BadClipError, match=path.name) as error:
            frames_of(path)
        reasons[error.value.reason] += 1
    assert any(reason.startswith("ends at") for reason in reasons)
    assert "has no video stream" in reasons


def test_every_real_video_is_read_to_its_end(shared_data):
    paths = sorted((shared_data / "video" / "decode_tests").glob("*.m*"))
    for path in paths:
        frames = frames_of(path, short_side=64)
        with VideoFile(str(path)) as video:
            looked_up = video.frames_at([frame.seconds for frame in frames])
            assert [frame.seconds for frame in frames] == [each.seconds for each in looked_up]
            assert frames[-1].seconds > video.duration_seconds - 0.2
            assert all(min(frame.image.shape[:2]) == 64 for frame in frames)
