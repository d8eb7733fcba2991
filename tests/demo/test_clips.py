"""Clips of the page: enlarged worlds, packaged videos, the user's videos."""

from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.data.clip import BadClipError
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.data.video.file import VideoFile
from midway.demo import clips
from midway.demo.clips import BUNDLED, CROWD, THINGS, enlarged, write_bundled, write_video_clip
from midway.experiments import motion

VIDEOS = Path(str(files("midway.demo") / "videos"))


def frame_of(folder: Path, entry: dict, number: int) -> np.ndarray:
    row, column = divmod(number, entry["columns"])
    left, top = column * entry["width"], row * entry["height"]
    with Image.open(folder / entry["sheet"]) as sheet:
        box = (left, top, left + entry["width"], top + entry["height"])
        return np.asarray(sheet.convert("RGB").crop(box)).astype(float)


def test_the_bundled_world_is_the_last_of_the_curriculum():
    assert motion.THINGS == THINGS


def test_an_enlarged_world_shows_the_same_scene():
    small = CROWD.world.build(CROWD.seed).frame(0.5).image
    large = enlarged(CROWD.world, 3).build(CROWD.seed).frame(0.5).image
    reduced = Image.fromarray(large).resize(small.shape[1::-1], Image.Resampling.BOX)
    assert np.abs(np.asarray(reduced).astype(float) - small).mean() < 8


def test_a_sheet_contains_the_frames_at_their_times(tmp_path: Path):
    entry = write_bundled(tmp_path, CROWD)
    assert len(entry["seconds"]) == clips.NUM_FRAMES
    assert entry["seconds"][4] == 0.5
    want = CROWD.world.build(CROWD.seed).frame(0.5).image
    assert np.abs(frame_of(tmp_path, entry, 4) - want).mean() < 8  # WebP loses a little


def test_packaged_videos_are_small_and_keep_their_pixels(tmp_path: Path):
    films = [clip for clip in BUNDLED if clip is not CROWD]
    assert sum((VIDEOS / f"{film.name}.mp4").stat().st_size for film in films) < 300_000
    for film in films:
        entry = write_bundled(tmp_path, film)
        assert (entry["width"], entry["height"], entry["scale"]) == (384, 288, 1)
        assert (entry["title"], entry["alt"]) == (film.title, film.alt)
        assert entry["seconds"][-1] > 1.5
        x, y = entry["point"]
        with VideoFile(str(VIDEOS / f"{film.name}.mp4")) as video:
            (want,) = [frame.image for frame in video.frames_in_order(entry["seconds"][:1])]
        near = np.s_[y - 8 : y + 8, x - 8 : x + 8]
        assert np.abs(frame_of(tmp_path, entry, 0)[near] - want[near]).mean() < 8


def test_a_video_is_taken_from_its_beginning_and_reduced(tmp_path: Path):
    world = WorldConfig(height=48, width=64, num_frames=60)
    (path,) = write_videos(tmp_path, world, seeds=[0])
    entry = write_video_clip(tmp_path, "clip_0", path, longest_side=32)
    assert (entry["width"], entry["height"], entry["title"]) == (32, 24, "world_0000.mp4")
    assert entry["scale"] == 0.5
    assert len(entry["seconds"]) == 15  # 59/30 s in steps of 1/8 s
    assert entry["seconds"][:2] == [0.062, 0.188]
    # The second one is at 0.1875 s, that is frame 5 of 30 a second.
    images = [Image.fromarray(world.build(0).frame(i / 30).image) for i in range(12)]
    second = frame_of(tmp_path, entry, 1)
    errors = [np.abs(second - np.asarray(image.resize((32, 24)))).mean() for image in images]
    assert np.argmin(errors) == 5


def test_a_file_that_is_no_video_is_named(tmp_path: Path):
    path = tmp_path / "notes.mp4"
    path.write_text("no video")
    with pytest.raises(BadClipError, match=r"notes\.mp4"):
        write_video_clip(tmp_path, "clip_0", path, longest_side=640)
