"""Frames of a store: by time, in any process, and errors of damaged and foreign stores."""

import io
import pickle
import shutil
import struct
import sys
from pathlib import Path

import lance
import numpy as np
import pyarrow as pa
import pytest
import simplejpeg
from PIL import Image

from midway.data.clip import BadClipError
from midway.data.clips.find import find_clips
from midway.data.clips.store import StoreConfig, is_store, open_store, read_store, store_schema
from midway.errors import MidwayError
from tests.data.video.made_videos import grey, number_of

CONFIG = StoreConfig(fps=5)


def jpeg(number: int, size: tuple[int, int] = (48, 64)) -> bytes:
    file = io.BytesIO()
    Image.fromarray(grey(number, size)).save(file, "JPEG", quality=95)
    return file.getvalue()


def write_store(path: Path, clips: dict[str, list[tuple[float, bytes]]], **metadata) -> str:
    """A store of 64x48 frames, written row by row, without the code that is tested."""
    rows = [
        {"clip": clip, "seconds": seconds, "width": 64, "height": 48, "jpeg": data}
        for clip, frames in clips.items()
        for seconds, data in frames
    ]
    schema = store_schema(CONFIG)
    schema = schema.with_metadata({**(schema.metadata or {}), **metadata})
    lance.write_dataset(pa.Table.from_pylist(rows, schema=schema), str(path), mode="create")
    return str(path)


def even_frames(first: int, count: int) -> list[tuple[float, bytes]]:
    return [(number / 5, jpeg(first + number)) for number in range(count)]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("stores")
    return write_store(
        folder / "two clips #1 100%20.lance", {"a": even_frames(0, 20), "b/c": even_frames(30, 10)}
    )


def test_clips_are_listed_in_order_with_their_times_and_rate(store):
    clips = read_store(store)
    assert [clip.name for clip in clips] == ["a", "b/c"]
    assert {clip.location for clip in clips} == {store}
    assert {clip.fps for clip in clips} == {5}
    np.testing.assert_array_equal(clips[0].frame_seconds, np.arange(20) / 5)
    np.testing.assert_array_equal(clips[1].frame_seconds, np.arange(10) / 5)


def test_times_in_any_order_and_repeated_give_the_frame_shown_then(store):
    asked = [1.99, 0.0, -1.0, 0.7, 0.2, 100.0, 0.7]
    with read_store(store)[1].open() as reader:
        frames = reader.frames_at(asked)
    assert [number_of(frame.image) for frame in frames] == [39, 30, 30, 33, 31, 39, 33]
    assert [frame.seconds for frame in frames] == [1.8, 0.0, 0.0, 0.6, 0.2, 1.8, 0.6]
    assert frames[0].image.shape == (48, 64, 3)


def test_a_frame_asked_for_twice_is_decoded_once(store, monkeypatch):
    decoded = []
    decode = simplejpeg.decode_jpeg
    monkeypatch.setattr(simplejpeg, "decode_jpeg", lambda data: decoded.append(1) or decode(data))
    read_store(store)[0].frames_at([0.0, 0.05, 1.0, 0.0])
    assert len(decoded) == 2


def test_a_clip_travels_to_another_process_without_what_was_opened(store):
    clip = read_store(store)[0]
    clip.frames_at([0.0])
    pickled = pickle.dumps(clip)
    assert len(pickled) < 2000
    assert number_of(pickle.loads(pickled).frames_at([0.6])[0].image) == 3


def test_a_clip_longer_than_a_batch_of_rows_is_one_clip(tmp_path):
    times = [number / 5 for number in range(20_000)]
    clips = {"short": times[:3], "long": times, "last": times[:5]}
    location = write_store(
        tmp_path / "s.lance", {name: [(each, b"") for each in kept] for name, kept in clips.items()}
    )
    found = read_store(location)
    assert [(clip.name, clip.first_row) for clip in found] == [
        ("short", 0),
        ("long", 3),
        ("last", 20_003),
    ]
    for clip in found:
        np.testing.assert_array_equal(clip.frame_seconds, clips[clip.name])


def test_an_empty_store_has_no_clips_which_training_says_in_one_line(tmp_path):
    location = write_store(tmp_path / "s.lance", {})
    assert read_store(location) == []
    with pytest.raises(MidwayError, match=r"s\.lance: contains no clip; prepare it again"):
        find_clips(location, fps=5, gap_seconds=(0.2, 0.4))


def test_a_store_without_a_column_or_with_another_type_is_refused(tmp_path):
    schema = store_schema(CONFIG)
    rows = {"clip": ["a"], "seconds": ["0.0"], "width": [64], "height": [48]}
    table = pa.table(rows).replace_schema_metadata(schema.metadata)
    lance.write_dataset(table, str(tmp_path / "s.lance"))
    message = r"s\.lance: has no column seconds, width, height, jpeg of the right type"
    with pytest.raises(MidwayError, match=message):
        read_store(str(tmp_path / "s.lance"))


def test_settings_that_are_no_object_are_refused(tmp_path):
    location = write_store(tmp_path / "s.lance", {}, **{"midway.settings": "[1]"})
    with pytest.raises(MidwayError, match=r"s\.lance: has damaged settings"):
        read_store(location)


def sized(data: bytes, height: int, width: int) -> bytes:
    """A JPEG whose header claims another size."""
    start = data.index(b"\xff\xc0") + 5
    return data[:start] + struct.pack(">HH", height, width) + data[start + 4 :]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "is not a complete JPEG"),
        (b"no picture", "is not a complete JPEG"),
        (jpeg(3)[:-200], "is not a complete JPEG"),
        (jpeg(3, (24, 32)), "JPEG of 32x24 pixels in a row for 64x48"),
        (sized(jpeg(3), 65_000, 65_000), "JPEG of 65000x65000 pixels in a row for 64x48"),
    ],
    ids=["empty", "text", "cut", "other size", "huge"],
)
def test_a_broken_frame_is_named_with_store_clip_and_time(tmp_path, data, reason):
    frames = even_frames(0, 5)
    frames[3] = (0.6, data)
    location = write_store(tmp_path / "s.lance", {"a": even_frames(9, 2), "b.mp4": frames})
    clip = read_store(location)[1]
    assert number_of(clip.frames_at([0.4])[0].image) == 2
    with pytest.raises(BadClipError, match=reason) as error:
        clip.frames_at([0.0, 0.7])
    assert str(error.value).startswith(f"{location}: the frame of b.mp4 at 0.600 s")


def test_a_row_that_is_as_huge_as_its_jpeg_is_not_decoded(tmp_path):
    schema = store_schema(CONFIG)
    row = {"clip": "a", "seconds": 0.0, "width": 65_000, "height": 65_000}
    row["jpeg"] = sized(jpeg(3), 65_000, 65_000)
    location = str(tmp_path / "s.lance")
    lance.write_dataset(pa.Table.from_pylist([row], schema=schema), location)
    with pytest.raises(BadClipError, match="65000x65000"):
        read_store(location)[0].frames_at([0.0])


def test_a_store_that_was_made_anew_meanwhile_is_noticed(tmp_path):
    location = write_store(tmp_path / "s.lance", {"a": even_frames(0, 5), "b": even_frames(5, 5)})
    clip = read_store(location)[1]
    shutil.rmtree(location)
    write_store(tmp_path / "s.lance", {"b": even_frames(0, 5), "a": even_frames(5, 5)})
    with pytest.raises(BadClipError, match=r"b at 0.000 s has moved, as the store was rewritten"):
        clip.frames_at([0.0])


def test_a_store_that_vanished_stops_with_one_line(tmp_path):
    location = write_store(tmp_path / "s.lance", {"a": even_frames(0, 5)})
    clip = read_store(location)[0]
    clip.frames_at([0.0])
    shutil.rmtree(location)
    with pytest.raises(MidwayError, match="cannot be opened as a frame store") as error:
        clip.frames_at([0.4])
    assert not isinstance(error.value, BadClipError)
    assert "\n" not in str(error.value)


def test_a_clip_whose_file_is_damaged_is_bad(tmp_path):
    location = write_store(tmp_path / "s.lance", {"a": even_frames(0, 5)})
    clip = read_store(location)[0]
    for file in (Path(location) / "data").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(BadClipError, match=r"a at 0.000 s cannot be read"):
        clip.frames_at([0.0])


def complaint_about(location: str) -> str:
    """What reading all frames of a store says is wrong."""
    try:
        for clip in read_store(location):
            clip.frames_at(clip.frame_seconds.tolist())
    except MidwayError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("seed", range(20))
def test_no_damage_to_a_store_ends_in_anything_but_one_line(tmp_path, seed):
    location = write_store(tmp_path / "s.lance", {"a": even_frames(0, 3)})
    rng = np.random.default_rng(seed)
    files = [path for path in Path(location).rglob("*") if path.suffix in (".lance", ".manifest")]
    path = files[seed % len(files)]
    data = bytearray(path.read_bytes())
    start = int(rng.integers(len(data)))
    data[start : start + 8] = rng.bytes(8)
    path.write_bytes(data[: int(rng.integers(len(data)))] if seed % 3 == 0 else data)
    complaint = complaint_about(location)
    assert complaint == "" or complaint.startswith(location)
    assert "\n" not in complaint


def test_what_is_no_store_of_this_version_says_so(tmp_path):
    other = write_store(tmp_path / "v.lance", {}, **{"midway.store_version": "9"})
    with pytest.raises(MidwayError, match=r"v.lance: is a frame store of version 9, .* version 1"):
        read_store(other)
    foreign = str(tmp_path / "f.lance")
    lance.write_dataset(pa.table({"x": [1]}), foreign)
    with pytest.raises(MidwayError, match=r"f.lance: is a Lance dataset but not a frame store"):
        read_store(foreign)
    with pytest.raises(MidwayError, match=r"m.lance: cannot be opened as a frame store \(.*\); "):
        read_store(str(tmp_path / "m.lance"))


def test_a_store_that_holds_a_clip_twice_is_refused(tmp_path):
    location = write_store(tmp_path / "s.lance", {"a": even_frames(0, 2), "b": even_frames(2, 2)})
    again = lance.dataset(location).to_table().slice(0, 2)
    lance.write_dataset(again, location, mode="append")
    with pytest.raises(MidwayError, match="contains a twice"):
        read_store(location)


def test_without_the_extra_the_error_says_what_to_install(store, monkeypatch):
    monkeypatch.setitem(sys.modules, "lance", None)
    with pytest.raises(MidwayError, match=r"needs lance; .*midway-network\[store\]"):
        read_store(store)


def test_a_store_is_told_by_its_name_or_what_lies_in_it(tmp_path, store):
    renamed = tmp_path / "renamed"
    shutil.copytree(store, renamed)
    assert is_store(str(renamed))
    assert is_store("s3://bucket/bdd.lance/")
    assert not is_store(str(tmp_path))
    assert not is_store("s3://bucket/videos")


def test_a_store_tells_what_it_was_made_with(store):
    assert open_store(store)[1] == CONFIG


@pytest.mark.parametrize(
    "wrong", [{"fps": 0}, {"fps": float("nan")}, {"short_side": 8}, {"jpeg_quality": 101}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(MidwayError, match=rf"{next(iter(wrong))} = .*; give"):
        StoreConfig(**wrong)


def test_a_store_that_ends_the_process_that_opens_it_is_refused_in_one_line(tmp_path, capfd):
    """Lance puts a name of the file into its error, and aborts if it contains a zero byte."""
    store = write_store(tmp_path / "damaged.lance", {"a": even_frames(0, 20)})
    (data,) = Path(store).glob("data/*.lance")
    data.write_bytes(data.read_bytes().replace(b"/lance.encodings2", b"/lance.encodings\0"))
    with pytest.raises(MidwayError) as refused:
        find_clips(store, fps=30, gap_seconds=(0.1, 0.5), num_workers=1)
    assert str(refused.value) == (
        f"{store}: ends the process that reads it (SIGABRT); copy or prepare the store again"
    )
    assert capfd.readouterr().err == ""
