"""Videos with camera poses: reading, relative motion and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.data.labelled_videos.poses import COMPONENTS, read_posed_video
from midway.errors import MidwayError


def rotation(*, yaw: float = 0, pitch: float = 0, roll: float = 0) -> np.ndarray:
    """Roll about z, then pitch about x, then yaw about y; degrees."""
    a, b, c = np.radians([yaw, pitch, roll])
    about_y = [[np.cos(a), 0, np.sin(a)], [0, 1, 0], [-np.sin(a), 0, np.cos(a)]]
    about_x = [[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]]
    about_z = [[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]
    return np.array(about_y) @ np.array(about_x) @ np.array(about_z)


def write_video(folder: Path, poses: list[np.ndarray], numbers: list[int]) -> tuple[Path, Path]:
    frames, file = folder / "frames", folder / "poses.txt"
    frames.mkdir()
    for number in numbers:
        image = np.full((4, 6), number, np.uint8)
        Image.fromarray(image).save(frames / f"{number:06d}.png")
    file.write_text("".join(" ".join(f"{v:.9f}" for v in p.ravel()) + "\n" for p in poses))
    return frames, file


def pose(turn: np.ndarray, place: tuple[float, float, float]) -> np.ndarray:
    return np.concatenate([turn, np.array(place)[:, None]], axis=1)


def test_motion_is_in_the_coordinates_of_the_first_frame(tmp_path: Path) -> None:
    turned = rotation(yaw=90)
    further = rotation(yaw=10, pitch=-4, roll=2)
    # A camera that looks to the right moves 3 m ahead, 2 m to its right and 1 m down.
    x, y, z = turned @ np.array([2.0, 1.0, 3.0])
    poses = [
        pose(np.eye(3), (0, 0, 0)),
        pose(turned, (5, 0, 0)),
        pose(turned @ further, (x + 5, y, z)),
    ]
    video = read_posed_video(*write_video(tmp_path, poses, [0, 1, 2]))
    motion = video.motion([0, 1, 1], [1, 2, 1])
    assert COMPONENTS == ("forward", "lateral", "vertical", "yaw", "pitch", "roll")
    np.testing.assert_allclose(motion[0], [0, 5, 0, 90, 0, 0], atol=1e-6)
    np.testing.assert_allclose(motion[1], [3, 2, 1, 10, -4, 2], atol=1e-6)
    np.testing.assert_allclose(motion[2], np.zeros(6), atol=1e-6)


def test_a_frame_has_the_pose_of_its_number(tmp_path: Path) -> None:
    poses = [pose(np.eye(3), (0, 0, float(number))) for number in range(12)]
    video = read_posed_video(*write_video(tmp_path, poses, [10, 2, 4]))
    assert [file.name for file in video.files] == ["000002.png", "000004.png", "000010.png"]
    assert video.poses[:, 2, 3].tolist() == [2, 4, 10]
    assert video.image(2).shape == (4, 6, 3)
    assert (video.image(2) == 10).all()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1 0 0 0 0 1 0 0 0 0 1\n", "does not have the poses"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n\n1 0 0 0 0 1 0 0 0 0 1 0\n", "does not have the poses"),
        ("", "is empty"),
        ("a b c\n", "does not have the poses"),
        ("2 0 0 0 0 1 0 0 0 0 1 0\n", "no rotation and translation"),
        ("1 0 0 inf 0 1 0 0 0 0 1 0\n", "no rotation and translation"),
        ("1 0 0 0 0 1 0 0 0 0 1 0\n", "has 1 lines, none for 000001.png"),
    ],
)
def test_poses_that_do_not_fit_are_refused(tmp_path: Path, text: str, said: str) -> None:
    frames, file = write_video(tmp_path, [], [0, 1])
    file.write_text(text)
    with pytest.raises(MidwayError, match=said):
        read_posed_video(frames, file)


def test_a_folder_without_numbered_images_is_refused(tmp_path: Path) -> None:
    frames, file = write_video(tmp_path, [pose(np.eye(3), (0, 0, 0))], [])
    with pytest.raises(MidwayError, match="has no images"):
        read_posed_video(frames, file)
    Image.new("L", (2, 2)).save(frames / "left.png")
    with pytest.raises(MidwayError, match=r"left\.png is not named by its number"):
        read_posed_video(frames, file)
    with pytest.raises(MidwayError, match="is not a folder"):
        read_posed_video(file, file)
    with pytest.raises(MidwayError, match="No such file"):
        read_posed_video(frames, tmp_path / "absent.txt")
