"""Samples of LeRobot datasets stay within their episodes, and carry their actions."""

import builtins
from pathlib import Path

import numpy as np
import pytest

from midway.data.clip import BadClipError
from midway.data.clips.find import find_clips
from midway.data.clips.parts import VideoPart
from midway.data.clips.roots import Selection
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.signals import read_signals
from midway.data.views.spec import ClipSpec, Region
from midway.data.workers.pool import Reading
from midway.errors import MidwayError
from tests.data.clips.lerobot_sets import CAMERAS, LeRobotSet, read_number

pytest.importorskip("pyarrow")
GAP = (0.1, 0.3)
SHAPES = {"action": (7,), "observation.state": ()}
VIDEO = f"videos/{CAMERAS[0]}/chunk-000/file-000.mp4"


@pytest.fixture
def robot(tmp_path: Path) -> LeRobotSet:
    """Three episodes of 20 frames in one file."""
    return LeRobotSet(tmp_path / "robot", (20, 20, 20), num_files=1, num_cameras=2).write()


def test_no_pair_of_40_episodes_in_3_files_leaves_its_episode_and_actions_keep_their_bits(
    tmp_path, caplog
):
    lengths = tuple(9 + number % 7 for number in range(40))
    robot = LeRobotSet(tmp_path, lengths, num_files=3).write()
    found = find_clips(str(tmp_path), fps=30, gap_seconds=GAP)
    assert [len(clip.frame_seconds) for clip in found.clips] == list(lengths)
    assert (found.skipped, caplog.messages) == ((), [])
    spec = ClipSpec(num_frames=2, regions={"frame": Region()}, signals=SHAPES)
    samples = ClipDataset(found, ClipsConfig(root=str(tmp_path), gap_seconds=GAP), spec, seed=0)
    met = set()
    for epoch in range(6):
        for index in range(40):
            (sample,) = samples.read(epoch, index, Reading({}, lambda clip: None))
            numbers = [read_number(image) for image in sample.regions["frame"]]
            assert [robot.episode_of(number) for number in numbers] == [index, index]
            assert sample.signals["action"].tobytes() == robot.actions[numbers].tobytes()
            assert sample.signals["observation.state"].tobytes() == robot.states[numbers].tobytes()
            met |= set(numbers)
    # The first and the last frames of episodes are met too.
    ends = set(robot.ends.tolist())
    assert len(met & {end - 1 for end in ends}) > 20
    assert len(met & ends) > 20


def test_frames_of_an_episode_have_times_of_their_own(robot):
    clip = find_clips(
        str(robot.folder), fps=30, gap_seconds=GAP, selection=Selection(camera="top")
    ).clips[1]
    assert isinstance(clip, VideoPart)
    assert clip.name == f"{VIDEO}#000001"
    with clip.open() as reader:
        frames = reader.frames_at([-1, 0.05, 19 / 30])
    assert [read_number(frame.image) for frame in frames] == [20, 21, 39]
    assert [frame.seconds for frame in frames] == pytest.approx([0, 1 / 30, 19 / 30])


@pytest.mark.parametrize("name", [CAMERAS[1], "wrist"])
def test_one_camera_can_be_chosen_of_several(robot, name):
    root = str(robot.folder.parent)
    assert len(find_clips(root, fps=30, gap_seconds=GAP).clips) == 6
    clips = find_clips(root, fps=30, gap_seconds=GAP, selection=Selection(camera=name)).clips
    assert [clip.name.split("/")[2] for clip in clips] == [CAMERAS[1]] * 3
    with clips[0].open() as reader:
        assert read_number(reader.frames_at([0])[0].image) == 2048


def test_a_camera_that_is_not_there_is_one_line_with_those_that_are(robot, tmp_path):
    message = r"data.camera = left: the cameras of .* are .*\.top, .*\.wrist; give one of them$"
    with pytest.raises(MidwayError, match=message):
        find_clips(str(tmp_path), fps=30, gap_seconds=GAP, selection=Selection(camera="left"))
    video = robot.folder / VIDEO
    message = r"data.camera = top: .* contains no LeRobot dataset; leave it out$"
    with pytest.raises(MidwayError, match=message):
        find_clips(str(video), fps=30, gap_seconds=GAP, selection=Selection(camera="top"))


def test_without_a_table_a_warning_says_what_may_happen(robot, caplog):
    (table,) = robot.folder.glob("meta/episodes/*/*.parquet")
    table.write_bytes(b"no table")
    with pytest.raises(MidwayError, match=r"parquet: is not a table of LeRobot episodes"):
        find_clips(str(robot.folder), fps=30, gap_seconds=GAP)
    table.unlink()
    clips = find_clips(str(robot.folder), fps=30, gap_seconds=GAP).clips
    assert [len(clip.frame_seconds) for clip in clips] == [60, 60]
    assert "2 videos are named as in LeRobot datasets" in caplog.messages[-1]


def test_without_pyarrow_one_line_says_what_to_install(robot, monkeypatch):
    real = builtins.__import__

    def refuse(name: str, *args: object) -> object:
        if name.startswith("pyarrow"):
            raise ImportError(name)
        return real(name, *args)  # pyright: ignore[reportArgumentType]

    monkeypatch.setattr(builtins, "__import__", refuse)
    message = r"parquet: Parquet needs pyarrow; run `pip install 'midway-network\[lerobot\]'`$"
    with pytest.raises(MidwayError, match=message):
        find_clips(str(robot.folder), fps=30, gap_seconds=GAP)


def rewritten(path: Path, **columns: object) -> None:
    """Replace columns of a table; None removes one."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    for name, values in columns.items():
        table = table.drop_columns([name])
        if values is not None:
            table = table.append_column(name, pa.array(values))
    pq.write_table(table, path)


ROWS = 40  # of the two even episodes


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"action": None}, r"cannot be read as signals \(no column action\)"),
        ({"timestamp": None}, r"cannot be read as signals \(no column timestamp\)"),
        ({"timestamp": [0.0] * ROWS}, "has no array `timestamp` that increases"),
        ({"episode_index": [7] * ROWS}, r"\(no row of episode 0\)"),
        ({"action": [[1.0] * (1 + row % 2) for row in range(ROWS)]}, "lists of several lengths"),
        ({"action": [None] * ROWS}, r"values of type null, or none"),
        ({"action": ["left"] * ROWS}, r"values of type string, or none"),
        ({"action": [[np.nan] * 7] * ROWS}, "does not have one finite value of action"),
        ({"action": [[1.0] * 3] * ROWS}, r"has action of shape \(3,\), not \(7,\)"),
    ],
)
def test_a_table_of_signals_that_cannot_be_used_costs_its_clips_one_line(robot, columns, message):
    rewritten(robot.folder / "data/chunk-000/file-000.parquet", **columns)
    clip = find_clips(
        str(robot.folder), fps=30, gap_seconds=GAP, selection=Selection(camera="top")
    ).clips[0]
    with pytest.raises(
        BadClipError, match=rf"file-000\.parquet: .*{message}.*; mend or remove it$"
    ):
        read_signals(clip, SHAPES, [0.0, 0.2])


def test_a_missing_table_of_signals_and_a_set_without_any_are_one_line(robot):
    (robot.folder / "data/chunk-000/file-000.parquet").unlink()
    clip = find_clips(
        str(robot.folder), fps=30, gap_seconds=GAP, selection=Selection(camera="top")
    ).clips[0]
    with pytest.raises(BadClipError, match=r"cannot be read as signals \(.*No such file"):
        read_signals(clip, SHAPES, [0.0])
    (table,) = robot.folder.glob("meta/episodes/*/*.parquet")
    rewritten(table, **{"data/chunk_index": None})
    clip = find_clips(
        str(robot.folder), fps=30, gap_seconds=GAP, selection=Selection(camera="top")
    ).clips[0]
    with pytest.raises(BadClipError, match=r"has no signals \(action, observation\.state\)"):
        read_signals(clip, SHAPES, [0.0])


def test_an_episode_after_the_end_of_its_video_is_a_skipped_clip(robot, tmp_path):
    """The video may be a partial copy."""
    import pyarrow.parquet as pq

    (path, *_) = sorted(robot.folder.rglob("meta/episodes/**/*.parquet"))
    field = f"videos/{CAMERAS[0]}"
    table = pq.read_table(path)
    starts, ends = (table[f"{field}/{name}_timestamp"].to_pylist() for name in ("from", "to"))
    starts[-1], ends[-1] = 1000.0, 1010.0
    rewritten(path, **{f"{field}/from_timestamp": starts, f"{field}/to_timestamp": ends})
    found = find_clips(str(robot.folder), fps=30, gap_seconds=GAP)
    reasons = [clip.reason for clip in found.skipped]
    assert len(reasons) == 1
    assert "has no frame from 1000 to 1010 s" in reasons[0]
