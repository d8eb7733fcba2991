"""Flow recorded beside clips: from worlds and from folders of files, read back as signals."""

from pathlib import Path

import numpy as np
import pytest

from midway.data.clips.find import find_clips
from midway.data.flow.files import write_flo
from midway.data.flow.recorded import UNKNOWN, record_flow_folder
from midway.data.signals import read_signals
from midway.data.synthetic.world import World, WorldConfig
from midway.data.synthetic.write import write_videos
from midway.errors import MidwayError

WORLD = WorldConfig(height=32, width=48, num_frames=20, fps=10.0)


def test_the_flow_of_a_world_is_recorded_beside_its_video(tmp_path: Path):
    write_videos(tmp_path, WORLD, seeds=[5], recorded_gap_seconds=0.3)
    (clip,) = find_clips(str(tmp_path), fps=10.0, gap_seconds=(0.3, 0.3), num_frames=2).clips
    shapes = {"flow": (2, 2, 32, 48), "flow_seconds": ()}
    signals = read_signals(clip, shapes, [0.4, 0.7])
    world = World(WORLD, 5)
    there, back = world.flow(0.4, 0.7).flow, world.flow(0.7, 0.4).flow
    for frame, direction, expected in ((0, 0, there), (1, 1, back)):
        found = signals["flow"][frame, direction].transpose(1, 2, 0)
        np.testing.assert_allclose(found, expected, atol=1 / 64)
    assert signals["flow_seconds"] == pytest.approx([0.3, 0.3])


def test_a_folder_of_files_is_recorded_and_missing_frames_are_unknown(tmp_path: Path):
    rng = np.random.default_rng(0)
    flow = np.zeros((4, 6, 2), np.float32)
    for part, numbers in (("forward", (0, 1)), ("backward", (2,))):
        (tmp_path / part).mkdir()
        for number in numbers:
            flow = rng.normal(0, 3, (4, 6, 2)).astype(np.float32)
            flow[0, 0] = np.inf
            write_flo(tmp_path / part / f"walk_{number:06d}.flo", flow)
    record_flow_folder(tmp_path, tmp_path / "walk.signals.npz", fps=10.0, gap_frames=2)
    found = np.load(tmp_path / "walk.signals.npz")
    assert found["seconds"].tolist() == [0.0, 0.1, 0.2]
    assert found["flow_seconds"] == pytest.approx([0.2] * 3)
    assert found["flow"].shape == (3, 2, 2, 4, 6)
    assert (found["flow"][2, 0] == UNKNOWN).all()
    assert (found["flow"][:2, 1] == UNKNOWN).all()
    assert (found["flow"][[0, 1, 2], [0, 0, 1], :, 0, 0] == UNKNOWN).all()
    np.testing.assert_allclose(found["flow"][2, 1, :, 1:].transpose(1, 2, 0), flow[1:], atol=0.01)


def test_a_folder_without_flow_or_with_two_sizes_is_refused(tmp_path: Path):
    with pytest.raises(MidwayError, match="no flow in forward and backward"):
        record_flow_folder(tmp_path, tmp_path / "walk.signals.npz", fps=10.0, gap_frames=2)
    (tmp_path / "forward").mkdir()
    write_flo(tmp_path / "forward/0.flo", np.zeros((4, 6, 2)))
    write_flo(tmp_path / "forward/1.flo", np.zeros((4, 8, 2)))
    with pytest.raises(MidwayError, match=r"shape \(4, 8, 2\), not \(4, 6, 2\)"):
        record_flow_folder(tmp_path, tmp_path / "walk.signals.npz", fps=10.0, gap_frames=2)
