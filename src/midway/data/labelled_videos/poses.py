"""Frames of a video with camera poses, in the format of KITTI's odometry benchmark.

The poses are a text file with 12 numbers per line: the rows of the 3 x 4 matrix that takes points
of the camera of a frame to the coordinates of the first camera, with x to the right, y down and z
forward, in metres. Line n, from 0, belongs to the image whose name is the number n.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.images import read_image
from midway.errors import MidwayError, one_line

COMPONENTS = ("forward", "lateral", "vertical", "yaw", "pitch", "roll")
"""Components of a relative pose: metres forward, to the right and down; degrees of rotation about
the vertical, the lateral and the forward axis."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PosedVideo:
    """Image files in order of time, with the pose of the camera at each."""

    files: tuple[Path, ...]
    poses: NDArray[np.float64]
    """Poses of the frames, shape (frames, 4, 4)."""

    def image(self, number: int) -> NDArray[np.uint8]:
        """Read a frame as RGB (height, width, 3).

        Raises:
            BadClipError: The file is not an image, or is damaged.
        """
        return read_image(str(self.files[number]))

    def motion(self, first: Sequence[int], second: Sequence[int]) -> NDArray[np.float64]:
        """Return the poses of some frames relative to others, shape (pairs, 6), by `COMPONENTS`.

        Args:
            first: Numbers of the frames whose cameras define the coordinates.
            second: Numbers of the frames whose pose is returned.
        """
        relative = np.linalg.inv(self.poses[list(first)]) @ self.poses[list(second)]
        x, y, z = relative[:, :3, 3].T
        # The rotation is that about y (yaw), then x (pitch), then z (roll).
        yaw = np.arctan2(relative[:, 0, 2], relative[:, 2, 2])
        pitch = np.arcsin(np.clip(-relative[:, 1, 2], -1, 1))
        roll = np.arctan2(relative[:, 1, 0], relative[:, 1, 1])
        return np.stack([z, x, y, *np.degrees([yaw, pitch, roll])], axis=1)


def read_posed_video(frames: Path, poses: Path) -> PosedVideo:
    """List the frames of a folder and read their poses.

    Args:
        frames: Folder of images named by their number, such as `000002.png`; numbers may be absent.
        poses: Text file of poses in KITTI's format.

    Raises:
        MidwayError: The poses cannot be read, or an image has no number or no pose.

    """
    matrices = _read_poses(poses)
    if not frames.is_dir():
        raise MidwayError(f"{frames}: is not a folder; give the folder of the video's images")
    images = [file for file in frames.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES]
    if unnumbered := [file.name for file in images if not file.stem.isdecimal()]:
        raise MidwayError(
            f"{frames}: {min(unnumbered)} is not named by its number; name images as 000002.png"
        )
    files = sorted(images, key=lambda file: int(file.stem))
    if not files:
        raise MidwayError(f"{frames}: has no images; give the folder of the video's images")
    numbers = [int(file.stem) for file in files]
    if numbers[-1] >= len(matrices):
        raise MidwayError(
            f"{poses}: has {len(matrices)} lines, none for {files[-1].name}; give the poses of "
            "this video"
        )
    return PosedVideo(files=tuple(files), poses=matrices[numbers])


def _read_poses(path: Path) -> NDArray[np.float64]:
    """Return all poses of a file as (lines, 4, 4)."""
    remedy = "give a text file of KITTI's poses, with 12 numbers per line"
    try:
        lines = path.read_text().rstrip().splitlines()
        rows = np.array([[float(word) for word in line.split()] for line in lines])
        upper = rows.reshape(len(lines), 3, 4)
    except OSError as error:
        raise MidwayError(f"{one_line(error, path)}; {remedy}") from None
    except ValueError:
        raise MidwayError(f"{path}: does not have the poses of a video; {remedy}") from None
    turned = upper[:, :, :3] @ upper[:, :, :3].swapaxes(1, 2)
    if not len(upper):
        raise MidwayError(f"{path}: is empty; {remedy}")
    if not np.isfinite(upper).all() or not np.allclose(turned, np.eye(3), atol=1e-3):
        raise MidwayError(f"{path}: has a line that is no rotation and translation; {remedy}")
    last = np.broadcast_to([0.0, 0.0, 0.0, 1.0], (len(upper), 1, 4))
    return np.concatenate([upper, last], axis=1)
