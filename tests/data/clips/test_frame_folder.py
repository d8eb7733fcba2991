"""Frames of folders: sequences and times from file names."""

import numpy as np
import pytest

from midway.data.clips.frame_folder import group_sequences
from midway.data.clips.frame_numbers import natural_key
from midway.data.files import FoundFile, find_files
from tests.data.video.made_videos import number_of, write_frames


def test_sequences_of_one_folder_are_told_apart_by_name_and_timed_by_number(shared_data):
    root = shared_data / "camvid"
    sequences = group_sequences(find_files(str(root)), fps=30)
    spans = {
        sequence.name: (len(sequence.frames), sequence.frame_seconds[-1]) for sequence in sequences
    }
    pictures = {name: span for name, span in spans.items() if "annot" not in name}
    assert pictures == {
        "train/0001TP_*.png": (62, 61.0),
        "train/0006R0_f*.png": (60, 59.0),
        "train/0016E5_*.png": (50, 49.0),
        "val/0016E5_*.png": (30, pytest.approx(58 / 30)),
        "test/Seq05VD_f*.png": (50, 49.0),
    }
    train = next(each for each in sequences if each.name == "train/0001TP_*.png")
    np.testing.assert_array_equal(train.frame_seconds, np.arange(62))


@pytest.mark.parametrize(
    ("names", "order", "seconds"),
    [
        (["f10.png", "f9.png", "f100.png"], [1, 0, 2], [0, 0.1, 9.1]),
        (["f_0001_left.png", "f_0002_left.png"], [0, 1], [0, 0.1]),
        (["007.png", "008.png"], [0, 1], [0, 0.1]),
        (["c.png", "a.png", "b.png"], [1, 2, 0], [0, 0.1, 0.2]),
    ],
    ids=["unpadded", "number inside", "number only", "no numbers"],
)
def test_frames_are_in_natural_order_at_the_times_of_their_numbers(tmp_path, names, order, seconds):
    write_frames(tmp_path, names)
    (sequence,) = group_sequences(find_files(str(tmp_path)), fps=10)
    assert [number_of(sequence.frames_at([time])[0].image) for time in seconds] == order
    np.testing.assert_allclose(sequence.frame_seconds, seconds)
    assert sequence.location == str(tmp_path)


@pytest.mark.parametrize(
    "names",
    [
        ["a1.png", "b1.png"],
        ["left/1.png", "right/1.png"],
        ["1.png", "1.bmp"],
        ["1.png", "cover.png"],
        ["1_left.png", "1_right.png"],
    ],
)
def test_other_name_folder_or_kind_is_another_sequence(names):
    files = [FoundFile(f"/{name}", name, 0, "") for name in names]
    sequences = group_sequences(files, fps=10)
    assert len({sequence.name for sequence in sequences}) == 2


def numbers(first: str, last: str, count: int) -> list[str]:
    return [f"{first}{number:05}{last}" for number in range(count)]


NUMBERED = {
    "constant behind": (numbers("aachen_000000_", "_leftImg8bit.png", 20), 1, 1.9),
    "size": (numbers("img_", "_640x480.jpg", 20), 1, 1.9),
    "camera": (numbers("", "_cam2.jpg", 20), 1, 1.9),
    "two cameras": (numbers("", "_cam1.jpg", 20) + numbers("", "_cam2.jpg", 20), 2, 1.9),
    "sequences": (numbers("a_000001_", "_8b.png", 9) + numbers("a_000002_", "_8b.png", 9), 2, 0.8),
    "many short sequences": (
        [f"v{clip:03}_{number:04}.jpg" for clip in range(30) for number in range(12)],
        30,
        1.1,
    ),
    "seconds": ([f"{1305031102 + 0.033 * n:.6f}.png" for n in range(60)], 1, 59 * 0.033),
    "two decimals": ([f"frame_{n / 30:.2f}.jpg" for n in range(60)], 1, 1.97),
    "whole seconds": ([f"frame_{n}.000.jpg" for n in range(9)], 1, 8.0),
    "scenes": ([f"shot.{k}.{n:04}.png" for k in (1, 2) for n in range(20)], 2, 1.9),
    "a name that ends in a digit": ([f"render1.{n:04}.png" for n in range(20)], 1, 1.9),
}


@pytest.mark.parametrize(("names", "sequences", "seconds"), NUMBERED.values(), ids=NUMBERED)
def test_the_number_that_varies_counts_the_frames_and_decimals_are_seconds(
    names, sequences, seconds
):
    files = [FoundFile(f"/{name}", name, 0, "") for name in names]
    found = group_sequences(files, fps=10)
    assert len(found) == sequences
    for sequence in found:
        assert len(sequence.frames) == len(names) // sequences
        assert sequence.frame_seconds[-1] == pytest.approx(seconds, abs=1e-3)
        assert 5 < sequence.fps < 40 or names[0] == "frame_0.000.jpg"


def test_a_time_between_frames_gives_the_one_before(tmp_path):
    write_frames(tmp_path, ["f0.png", "f1.png", "f4.png"])
    (sequence,) = group_sequences(find_files(str(tmp_path)), fps=2)
    asked = [-1, 0, 0.49, 0.5, 1.99, 2.0, 9]
    assert [number_of(sequence.frames_at([seconds])[0].image) for seconds in asked] == [
        0, 0, 0, 1, 1, 2, 2
    ]  # fmt: skip
    assert sequence.frames_at([1.99])[0].seconds == 0.5


def test_numbers_longer_than_64_bits_keep_their_distances(tmp_path):
    start = 17_000_000_000_000_000_000 * 10
    names = [f"{start + number}.png" for number in (0, 1, 4)]
    write_frames(tmp_path, names)
    (sequence,) = group_sequences(find_files(str(tmp_path)), fps=2)
    assert sequence.frame_seconds.tolist() == [0, 0.5, 2]


def test_natural_order_counts_digits_as_numbers():
    names = ["b1", "a10", "a9b", "A9a", "a"]
    assert sorted(names, key=natural_key) == ["a", "A9a", "a9b", "a10", "b1"]
