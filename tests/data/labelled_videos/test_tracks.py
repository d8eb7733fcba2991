"""TAP-Vid's files in all their layouts, and tracks of made worlds."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from midway.data.labelled_videos.tracks import read_tap_vid, world_video
from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError

RNG = np.random.default_rng(0)
VIDEO = RNG.integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
POINTS = RNG.random((3, 4, 2)).astype(np.float32)
OCCLUDED = RNG.random((3, 4)) < 0.3
VALUES = {"video": VIDEO, "points": POINTS, "occluded": OCCLUDED}


def _dump(path, contents, protocol=4):
    path.write_bytes(pickle.dumps(contents, protocol=protocol))
    return path


def _jpeg(frame):
    file = io.BytesIO()
    Image.fromarray(frame).save(file, "JPEG", quality=95)
    return file.getvalue()


@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_a_pickled_dict_of_videos_is_read_with_points_in_pixels(tmp_path, protocol):
    path = _dump(tmp_path / "davis.pkl", {"dog": VALUES, "cat": VALUES}, protocol)
    first, second = read_tap_vid(path)
    assert (first.name, second.name) == ("dog", "cat")
    np.testing.assert_array_equal(first.frames, VIDEO)
    np.testing.assert_array_equal(first.occluded, OCCLUDED)
    # 0 to 1 spans the frame from border to border: the middle of its first pixel is 0.5 / 30.
    np.testing.assert_allclose(first.points, POINTS * [30, 20] - 0.5)


def test_a_list_of_videos_of_jpegs_is_read_and_numbered(tmp_path):
    frames = [_jpeg(np.full((20, 30, 3), 40 * number, np.uint8)) for number in range(4)]
    (found,) = read_tap_vid(_dump(tmp_path / "kinetics.pkl", [{**VALUES, "video": frames}]))
    assert found.name == "kinetics_0000"
    assert found.frames.shape == VIDEO.shape
    assert np.abs(found.frames[2].astype(int) - 80).max() <= 2


def test_npz_files_of_a_folder_are_read_in_order_of_name(tmp_path):
    for name in ("b", "a"):
        np.savez(tmp_path / f"{name}.npz", **VALUES)
    assert [video.name for video in read_tap_vid(tmp_path)] == ["a", "b"]


def test_names_of_numpy_1_in_a_pickle_are_known(tmp_path):
    raw = pickle.dumps([VALUES], protocol=2).replace(b"numpy._core", b"numpy.core")
    (tmp_path / "old.pkl").write_bytes(raw)
    (found,) = read_tap_vid(tmp_path / "old.pkl")
    np.testing.assert_array_equal(found.frames, VIDEO)


class _Evil:
    def __reduce__(self):
        return exec, ("print('code of a pickle was run')",)


def test_a_pickle_that_refers_to_more_than_arrays_is_refused_and_not_run(tmp_path, capsys):
    path = _dump(tmp_path / "evil.pkl", [{**VALUES, "points": _Evil()}])
    with pytest.raises(MidwayError, match=r"evil\.pkl: refused.*builtins\.exec"):
        list(read_tap_vid(path))
    assert capsys.readouterr().out == ""


def test_a_pickle_cannot_look_up_a_codec(tmp_path):
    (tmp_path / "evil.pkl").write_bytes(
        b"\x80\x02c_codecs\nencode\nX\x01\x00\x00\x00aX\x05\x00\x00\x00rot13\x86R."
    )
    with pytest.raises(MidwayError, match="codec rot13"):
        list(read_tap_vid(tmp_path / "evil.pkl"))


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ([], "no videos with tracks"),
        ({}, "no videos with tracks"),
        (7, "no videos with tracks"),
        ([{"video": VIDEO}], "no points, occluded, found video; expected a dict of names"),
        ({"dog": 3}, "dog: no video, points, occluded"),
        ({"do\ng\x1b[31m": 3}, r"'do\\ng\\x1b\[31m': no video, points, occluded"),
        ([{**VALUES, "points": POINTS[:, :2]}], r"points of shape \(3, 2, 2\)"),
        ([{**VALUES, "occluded": OCCLUDED[:2]}], r"occluded of shape \(2, 4\)"),
        ([{**VALUES, "points": 20 * POINTS}], "divide pixels by the sides"),
        ([{**VALUES, "points": np.full_like(POINTS, 1.2)}], "visible points outside the image"),
        ([{**VALUES, "points": np.full_like(POINTS, -0.2)}], "visible points outside the image"),
        ([{**VALUES, "points": np.full_like(POINTS, np.nan)}], "visible points outside the image"),
        (
            [{**VALUES, "video": VIDEO[:1], "points": POINTS[:, :1], "occluded": OCCLUDED[:, :1]}],
            "expected at least two frames",
        ),
        ([{**VALUES, "video": VIDEO.astype(float)}], "type float64; expected at least two frames"),
        ([{**VALUES, "video": [b"x", b"y"]}], "frame 0: cannot be read as an image"),
        (
            [{**VALUES, "video": [_jpeg(VIDEO[0]), _jpeg(VIDEO[0, :10])]}],
            "frames of 30 x 10 and 30 x 20 pixels; give frames of one size",
        ),
    ],
)
def test_other_layouts_report_expected_and_found_contents(tmp_path, contents, message):
    path = _dump(tmp_path / "wrong.pkl", contents)
    with pytest.raises(MidwayError, match=message) as error:
        list(read_tap_vid(path))
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_lists_of_numbers_are_read_and_ragged_or_endless_ones_refused(tmp_path):
    lists = {**VALUES, "points": POINTS.tolist(), "occluded": OCCLUDED.tolist()}
    (found,) = read_tap_vid(_dump(tmp_path / "lists.pkl", [lists], 0))
    np.testing.assert_allclose(found.points, POINTS * [30, 20] - 0.5)
    deep, wide = 0.5, [0.5] * 20_000
    for _ in range(28):
        deep = [deep, deep]
    for points in (deep, [[wide] * 20_000] * 9, [[[1, 2], [3]]], [[[10**400]]], "text", None):
        path = _dump(tmp_path / "wrong.pkl", [{**VALUES, "points": points}])
        with pytest.raises(MidwayError, match="points are not numbers in rows of one length"):
            list(read_tap_vid(path))
    for video in (5, None, {}, "abc", [0.5]):
        with pytest.raises(MidwayError, match="video is a "):
            list(read_tap_vid(_dump(tmp_path / "wrong.pkl", [{**VALUES, "video": video}])))


def test_many_frames_of_one_large_picture_are_refused_before_memory_is_reserved(tmp_path):
    large = _jpeg(np.zeros((2048, 2048, 3), np.uint8))
    path = _dump(tmp_path / "bomb.pkl", [{**VALUES, "video": [large] * 1000}])
    with pytest.raises(MidwayError, match="1000 frames of 2048 x 2048 pixels do not fit"):
        list(read_tap_vid(path))


def test_unreadable_files_are_reported(tmp_path):
    (tmp_path / "cut.pkl").write_bytes(pickle.dumps([VALUES])[:-900])
    np.savez(tmp_path / "objects.npz", video=np.array([b"x", None], object))
    (tmp_path / "text.npz").write_text("text")
    (tmp_path / "empty").mkdir()
    (tmp_path / "video.mp4").write_text("x")
    (tmp_path / "image.pkl").write_bytes(b"Pid\n.")
    for name, message in {
        "none.pkl": "cannot be read",
        "cut.pkl": "incomplete pickle|is damaged",
        "objects.npz": "not a .npz of plain arrays",
        "text.npz": "not a .npz",
        "empty": "no .pkl",
        "video.mp4": "video.mp4: not a file of TAP-Vid",
        "image.pkl": "is damaged or refers to more than arrays",
    }.items():
        with pytest.raises(MidwayError, match=message) as error:
            list(read_tap_vid(tmp_path / name))
        assert "\n" not in str(error.value)


def test_tracks_of_a_world_stay_on_their_object_and_are_occluded_by_nearer_ones():
    config = WorldConfig(height=64, width=64, num_frames=8, fps=4, object_speed=40, camera_speed=20)
    video = world_video(config, 5, 60)
    assert video.frames.shape == (8, 64, 64, 3)
    seen = [World(config, 5).frame(number / 4).instances for number in range(8)]
    same, total, hidden = 0, 0, 0
    for points, occluded in zip(video.points, video.occluded, strict=True):
        cells = np.rint(points).astype(int)
        inside = ((cells >= 0) & (cells < 64)).all(1)
        assert occluded[~((points >= -0.5) & (points <= 63.5)).all(1)].all()
        things = {
            number: seen[number][cells[number, 1], cells[number, 0]]
            for number in np.flatnonzero(inside)
        }
        is_whole = np.abs(points - cells).max(1) < 1e-4
        start = next(number for number in (0, 2, 4, 6) if is_whole[number])
        for number, thing in things.items():
            if occluded[number]:
                hidden += 1
                assert thing >= things[start]  # whatever hides a point is nearer
            else:
                total += 1
                same += thing == things[start]
    assert hidden > 5
    assert same > 0.97 * total  # rounding to pixels can cross an outline
