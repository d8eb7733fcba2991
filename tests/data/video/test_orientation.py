"""Pictures of a turned camera come out upright."""

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


def test_a_slanted_display_is_refused(tmp_path):
    path = write_video(tmp_path / "slanted.mp4", even_times(4))
    turn_display(path, 1, 1, -1, 1)
    slanted = r"slanted\.mp4: is rotated.*90 degrees; re-encode"
    with VideoFile(str(path)) as video, pytest.raises(BadClipError, match=slanted):
        video.frames_at([0])
