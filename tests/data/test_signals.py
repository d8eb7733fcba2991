"""Signals hold from their time on, travel with their frames, and damaged ones cost their clip."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
from numpy.typing import NDArray

from midway.data.clip import BadClipError, Clip, SignalSource
from midway.data.clips.find import find_clips
from midway.data.clips.store import StoreConfig
from midway.data.prepare.pipeline import prepare
from midway.data.sampling.loader import ClipBatch, ClipLoader
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.signals import read_signals
from midway.data.views.spec import ClipSpec, Region
from midway.errors import MidwayError
from tests.data.video.made_videos import even_times, number_of, waves, write_frames, write_video

SHAPES = {"action": (2,), "speed": (), "pose": (3, 4)}
SECONDS = np.arange(16) / 10
NAMES = [f"{number}.png" for number in range(16)]


def arrays(first: float = 0.0) -> dict[str, NDArray[Any]]:
    """Signals of 16 frames at 10 Hz: a frame's number, and values that follow from it."""
    number = first + np.arange(16)
    return {
        "seconds": SECONDS,
        "action": np.stack((number, -number), 1),
        "speed": 2 * number.astype(np.int64),
        "pose": number[:, None, None] + np.arange(12).reshape(3, 4),
        "unused": np.zeros((16, 5)),
    }


def only_clip(root: Path) -> Clip:
    (clip,) = find_clips(str(root), fps=10, gap_seconds=(0.5, 1.0)).clips
    return clip


@pytest.fixture
def walk(tmp_path: Path) -> Path:
    """Archive beside the one video of a folder."""
    write_video(tmp_path / "walk.mp4", even_times(16))
    np.savez(tmp_path / "walk.signals.npz", **arrays())
    return tmp_path / "walk.signals.npz"


def check(clip: Clip, first: float = 0.0) -> None:
    found = read_signals(clip, SHAPES, (0.2, 1.5))
    assert list(found) == list(SHAPES)
    for name, shape in SHAPES.items():
        assert found[name].shape == (2, *shape)
        assert found[name].dtype == np.float32
        assert np.array_equal(found[name], arrays(first)[name][[2, 15]])


def test_signals_lie_beside_a_video(walk: Path) -> None:
    clip = only_clip(walk.parent)
    assert clip.signals == SignalSource(str(walk))
    check(clip)


def test_signals_lie_in_the_folder_of_the_frames(tmp_path: Path) -> None:
    write_frames(tmp_path / "walk", NAMES)
    np.savez_compressed(tmp_path / "walk/signals.npz", **arrays())
    check(only_clip(tmp_path))
    check(only_clip(tmp_path / "walk"))


def test_each_sequence_of_a_folder_has_its_own_signals(tmp_path: Path) -> None:
    for place, name in enumerate(("0001TP_", "0016E5_")):
        write_frames(tmp_path, [f"{name}{number:06}.png" for number in range(16)])
        np.savez(tmp_path / f"{name}.signals.npz", **arrays(100 * place))
    found = find_clips(str(tmp_path), fps=10, gap_seconds=(0.5, 1.0)).clips
    assert [clip.name for clip in found] == ["0001TP_*.png", "0016E5_*.png"]
    for place, clip in enumerate(found):
        check(clip, 100 * place)


@pytest.mark.parametrize(
    ("seconds", "row"),
    [(0.0, 0), (0.39, 0), (0.4, 1), (0.4 - 1e-9, 1), (0.5, 1), (0.99, 1), (1.0, 2), (60.0, 2)],
)
def test_the_value_is_the_one_in_force_at_the_time_of_the_frame(
    walk: Path, seconds: float, row: int
) -> None:
    np.savez(walk, seconds=[-0.2, 0.4, 1.0], speed=[5.0, 6.0, 7.0])
    (speed,) = read_signals(only_clip(walk.parent), {"speed": ()}, (seconds,))["speed"]
    assert speed == 5 + row


def changed(**fields: Any) -> Callable[[Path], None]:
    def write(path: Path) -> None:
        np.savez(path, **{**arrays(), **fields})

    return write


def cut_in_the_middle(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def compressed_and_damaged(path: Path) -> None:
    """The directory of the archive stays whole; what it points at does not decompress."""
    np.savez_compressed(path, **arrays())
    with ZipFile(path) as archive:
        start = archive.getinfo("action.npy").header_offset + 70
    data = bytearray(path.read_bytes())
    data[start : start + 20] = b"\xff" * 20
    path.write_bytes(data)


def with_a_text_in_it(path: Path) -> None:
    changed(action=np.zeros((16, 2)))(path)
    with ZipFile(path, "a") as archive:
        archive.writestr("action", "no array")


def as_a_plain_array(path: Path) -> None:
    with path.open("wb") as file:
        np.save(file, arrays()["action"])


DAMAGES = {
    "missing": (Path.unlink, r"cannot be read as signals \(.*No such file.*\)"),
    "missing name": (
        lambda path: np.savez(path, seconds=SECONDS, speed=SECONDS),
        r"cannot be read as signals \(.*action.*\)",
    ),
    "missing seconds": (
        lambda path: np.savez(path, **{k: v for k, v in arrays().items() if k != "seconds"}),
        r"cannot be read as signals \(.*seconds.*\)",
    ),
    "text": (lambda path: path.write_text("no\narchive"), "cannot be read as signals"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as signals"),
    "cut": (cut_in_the_middle, "cannot be read as signals"),
    "damaged": (compressed_and_damaged, "cannot be read as signals"),
    "text in it": (with_a_text_in_it, "cannot be read as signals"),
    "plain array": (as_a_plain_array, "cannot be read as signals"),
    "pickle": (
        changed(action=np.array([{}] * 16, dtype=object)),
        r"cannot be read as signals \(arrays of type \|O\)",
    ),
    "records": (
        changed(action=np.zeros(16, [("x", "f4"), ("y", "f4")])),
        r"cannot be read as signals \(arrays of type records",
    ),
    "words": (changed(action=np.array([["a", "b"]] * 16)), "cannot be read as signals"),
    "shape": (changed(action=np.zeros((16, 3))), r"has action of shape \(3,\), not \(2,\)"),
    "no axis": (changed(action=np.float64(3)), "does not have one finite value of action"),
    "too few": (changed(action=np.zeros((15, 2))), "does not have one finite value of action"),
    "NaN": (changed(action=np.full((16, 2), np.nan)), "does not have one finite value of action"),
    "infinite": (
        changed(action=np.full((16, 2), np.inf)),
        "does not have one finite value of action",
    ),
    "times fall": (changed(seconds=SECONDS[::-1]), "has no array `seconds` that increases"),
    "times stand": (changed(seconds=np.zeros(16)), "has no array `seconds` that increases"),
    "times NaN": (changed(seconds=np.full(16, np.nan)), "has no array `seconds` that increases"),
    "no rows": (
        lambda path: np.savez(path, seconds=np.zeros(0), action=np.zeros((0, 2))),
        "has no array `seconds` that increases",
    ),
    "times of two axes": (
        changed(seconds=np.zeros((16, 2))),
        "has no array `seconds` that increases",
    ),
    "late": (changed(seconds=SECONDS + 0.25), r"begins at 0\.25 s, after a frame at 0\.00 s"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_an_archive_that_cannot_be_used_is_told_in_one_line(walk: Path, damage: str) -> None:
    make, message = DAMAGES[damage]
    make(walk)
    with pytest.raises(BadClipError, match=f"{message}.*; mend or remove it$") as raised:
        read_signals(only_clip(walk.parent), {"action": (2,)}, (0.0, 0.5))
    assert str(raised.value).startswith(f"{walk}: ")
    assert "\n" not in str(raised.value)


def test_a_frame_store_has_no_signals(tmp_path: Path) -> None:
    write_video(tmp_path / "walk.mp4", even_times(31), picture=waves)
    store = tmp_path / "s.lance"
    prepare(str(tmp_path / "walk.mp4"), str(store), StoreConfig(fps=10), jobs=0)
    clip = only_clip(store)
    assert clip.signals is None
    message = r"s\.lance.*: has no signals \(action, speed\); train from the source files$"
    with pytest.raises(BadClipError, match=message) as raised:
        read_signals(clip, {"action": (2,), "speed": ()}, (0.0,))
    assert "\n" not in str(raised.value)


def loader_of(root: Path, *, num_frames: int = 3, **fields: Any) -> ClipLoader:
    config = ClipsConfig(
        root=str(root), fps=10, gap_seconds=(0.2, 0.4), **{"num_workers": 0, **fields}
    )
    spec = ClipSpec(num_frames=num_frames, regions={"frame": Region()}, signals=SHAPES)
    found = find_clips(str(root), fps=10, gap_seconds=(0.2, 0.4), num_frames=num_frames)
    return ClipLoader(ClipDataset(found, config, spec, seed=0), folder=root / "run")


def check_batch(batch: ClipBatch) -> None:
    num_frames, size = batch.seconds.shape
    assert {name: tuple(values.shape) for name, values in batch.signals.items()} == {
        name: (num_frames, size, *shape) for name, shape in SHAPES.items()
    }
    for frame in range(num_frames):
        for place in range(size):
            number = number_of(batch.regions["frame"][frame, place].numpy())
            wanted = arrays()
            for name in SHAPES:
                found = batch.signals[name][frame, place].numpy()
                assert np.array_equal(found, wanted[name][number])


@pytest.mark.parametrize("num_workers", [0, 2])
@pytest.mark.parametrize("num_frames", [1, 3])
def test_signals_reach_the_batch_beside_their_frames(
    tmp_path: Path, num_workers: int, num_frames: int
) -> None:
    for place in range(3):
        write_video(tmp_path / f"{place}.mp4", even_times(16))
        np.savez(tmp_path / f"{place}.signals.npz", **arrays())
    write_frames(tmp_path / "frames", NAMES)
    np.savez(tmp_path / "frames/signals.npz", **arrays())
    loader = loader_of(
        tmp_path, num_frames=num_frames, num_workers=num_workers, batch_size=8, draws_per_clip=2
    )
    batches = list(loader.batches(0, 3))
    assert len(batches) == 3
    for batch in batches:
        assert len(batch) == 8
        check_batch(batch)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_a_clip_with_bad_signals_is_skipped_and_counted(tmp_path: Path, num_workers: int) -> None:
    for name in ("bad", "good", "none"):
        write_frames(tmp_path / name, NAMES)
        np.savez(tmp_path / name / "signals.npz", **arrays())
    changed(pose=np.zeros((16, 4)))(tmp_path / "bad/signals.npz")
    (tmp_path / "none/signals.npz").unlink()
    loader = loader_of(tmp_path, num_workers=num_workers, batch_size=4, max_bad_share=0.7)
    batches = list(loader.batches(0, 3))
    for batch in batches:
        assert set(batch.clips) == {"good/*.png"}
        check_batch(batch)
    reasons = {skip.clip: skip.reason for batch in batches for skip in batch.skipped}
    assert reasons.keys() == {"bad/*.png", "none/*.png"}
    assert "has pose of shape (4,), not (3, 4); mend or remove it" in reasons["bad/*.png"]
    assert "No such file" in reasons["none/*.png"]
    assert len((tmp_path / "run/skipped.jsonl").read_text().splitlines()) == 2


def test_too_many_clips_without_signals_stop_the_run(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_frames(tmp_path / name, NAMES)
    np.savez(tmp_path / "a/signals.npz", **arrays())
    shutil.copy(tmp_path / "a/signals.npz", tmp_path / "a/copy.npz")  # not looked at
    loader = loader_of(tmp_path, batch_size=2, max_bad_share=0.4)
    with pytest.raises(MidwayError, match=r"1 of 2 clips \(50\.0%\) cannot be used"):
        list(loader.batches(0, 3))


@pytest.mark.parametrize(
    ("names", "archive"),
    [
        (NAMES, "signals.npz"),
        ([f"frame_{number}.png" for number in range(16)], "frame_.signals.npz"),
        ([f"{number}_left.png" for number in range(16)], "_left.signals.npz"),
        ([chr(ord("a") + number) + ".png" for number in range(16)], "signals.npz"),
    ],
    ids=["numbers", "before", "after", "letters"],
)
@pytest.mark.parametrize("folder", ["walk", "walk.v2", "."])
def test_the_archive_is_named_by_what_the_frames_share(
    tmp_path: Path, names: list[str], archive: str, folder: str
) -> None:
    write_frames(tmp_path / folder, names)
    clip = only_clip(tmp_path)
    assert clip.signals == SignalSource(str(tmp_path / folder / archive))
