"""The index of headers: what it saves, and that it never gives an outdated answer."""

import json
from pathlib import Path

import fsspec
import pytest

from midway.data.clips import find as clips_module
from midway.data.clips.find import ClipList, find_clips
from midway.data.clips.index import INDEX_NAME, read_index
from midway.data.prepare.index import build_index
from midway.errors import MidwayError
from tests.data.video.made_videos import even_times, write_video

GAP = (0.5, 1.0)


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    root = tmp_path / "videos"
    for number in range(3):
        (root / f"day{number}").mkdir(parents=True)
        write_video(root / f"day{number}/clip.mp4", even_times(16 + number))
    (root / "text.mp4").write_text("no video")
    return root


def build(root: Path, file: Path | None = None, *, num_workers: int = 0):
    destination = None if file is None else str(file)
    return build_index(str(root), destination, num_workers=num_workers, timeout_seconds=60)


def find(root: Path) -> ClipList:
    return find_clips(str(root), fps=10, gap_seconds=GAP)


@pytest.fixture
def headers_read(monkeypatch) -> list[str]:
    """Names of the files whose headers are read from now on, when clips are looked for."""
    names: list[str] = []
    read_headers = clips_module.read_headers

    def counted(files, **settings):
        names.extend(file.name for file in files)
        return read_headers(files, **settings)

    monkeypatch.setattr(clips_module, "read_headers", counted)
    return names


@pytest.mark.parametrize("num_workers", [0, 2])
def test_with_an_index_the_same_clips_are_found_and_no_header_is_read(
    videos, headers_read, num_workers
):
    without = find(videos)
    assert len(headers_read) == 4
    summary = build(videos, num_workers=num_workers)
    assert (summary.videos, summary.unusable, summary.reused) == (4, 1, 0)
    headers_read.clear()
    assert find(videos) == without
    assert headers_read == []


def test_a_file_that_is_new_or_has_changed_is_read_again(videos, headers_read):
    build(videos)
    write_video(videos / "new.mp4", even_times(31))
    write_video(videos / "day1/clip.mp4", even_times(26))
    (videos / "day0/clip.mp4").unlink()
    found = find(videos)
    assert sorted(headers_read) == ["day1/clip.mp4", "new.mp4"]
    lengths = {clip.name: len(clip.frame_seconds) for clip in found.clips}
    assert lengths == {"day1/clip.mp4": 26, "day2/clip.mp4": 18, "new.mp4": 31}


def test_building_it_again_reads_what_changed_or_could_not_be_used(videos):
    build(videos)
    write_video(videos / "new.mp4", even_times(31))
    summary = build(videos)
    assert (summary.videos, summary.unusable, summary.reused) == (5, 1, 3)
    assert read_index(str(videos / INDEX_NAME))[1]["new.mp4"].duration_seconds == pytest.approx(3.0)


def test_an_index_elsewhere_stands_for_its_folder(videos, tmp_path, headers_read, monkeypatch):
    monkeypatch.chdir(tmp_path)
    build(Path("videos"), tmp_path / "elsewhere.jsonl")
    monkeypatch.chdir(videos)
    assert not (videos / INDEX_NAME).exists()
    found = find(tmp_path / "elsewhere.jsonl")
    assert headers_read == []
    assert found == find(videos)


def test_progress_is_told(videos):
    told = []
    build_index(
        str(videos),
        num_workers=0,
        timeout_seconds=60,
        report=lambda done, total: told.append((done, total)),
    )
    assert told == [(4, 4)]


def test_a_url_can_be_indexed_and_read_by_its_index(videos, tmp_path, headers_read):
    memory = fsspec.filesystem("memory")
    memory.put(str(videos), "/indexed", recursive=True)
    try:
        for place in (None, "memory://indexed/index.jsonl"):
            with pytest.raises(MidwayError, match=r"must be a local file; give one after mem"):
                build_index("memory://indexed", place, num_workers=0, timeout_seconds=60)
        index = tmp_path / "remote.jsonl"
        build_index("memory://indexed", str(index), num_workers=0, timeout_seconds=60)
        found = find(index)
        assert [clip.name for clip in found.clips] == [f"day{n}/clip.mp4" for n in range(3)]
        assert found.clips[0].location == "memory:///indexed/day0/clip.mp4"
        assert headers_read == []
    finally:
        memory.rm("/indexed", recursive=True)


def index_of_one(**values):
    """An index of a single record, in which some values are wrong."""
    record = {"name": "a.mp4", "size": 1, "modified": "1", "duration_seconds": 1.0, "fps": 10.0}
    return "\n".join(
        json.dumps(line) for line in ({"midway_index": 1, "root": "x"}, record | values)
    )


WRONG_VALUES = (
    {"name": None},
    {"size": "1"},
    {"modified": 1},
    {"duration_seconds": "1"},
    {"duration_seconds": -1.0},
    {"duration_seconds": 1e308},
    {"duration_seconds": float("nan")},
    {"fps": True},
    {"fps": 0},
    {"fps": float("inf")},
    {"error": 1},
    {"frame_times": 1},
    {"frame_times": "?"},
    {"notes": 1},
    {"notes": ["unknown"]},
    {"extra": 1},
)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "nonsense",
        "[]",
        '{"clip": "a"}',
        '{"midway_index": 99, "root": "x"}',
        '{"midway_index": 1, "root": "x"}\n{"a"',
        *(index_of_one(**values) for values in WRONG_VALUES),
    ],
)
def test_what_is_no_index_is_refused_where_it_is_named_and_told_of_in_a_folder(
    videos, text, caplog
):
    index = videos / INDEX_NAME
    assert len(find(videos).clips) == 3
    assert caplog.messages == []
    index.write_text(text)
    assert len(find(videos).clips) == 3
    (told,) = caplog.messages
    assert told.startswith(f"{index}: is not a video index")
    assert told.endswith("; until then all headers are read")
    for use in (find, lambda file: build(videos, file)):
        with pytest.raises(
            MidwayError, match=r"midway-index\.jsonl: is not a video index .*; remove it, or"
        ):
            use(index)
    assert index.read_text() == text
    index.unlink()
    assert build(videos).videos == 4


def test_a_place_that_cannot_be_written_is_told(videos):
    with pytest.raises(MidwayError, match=r"/nowhere/i\.jsonl: cannot be written; give another"):
        build(videos, videos / "nowhere/i.jsonl")


def test_records_are_written_as_plain_json(videos):
    build(videos)
    head, *records = map(json.loads, (videos / INDEX_NAME).read_text().splitlines())
    assert head == {"midway_index": 1, "root": str(videos), "frame_times": True}
    assert {record["name"] for record in records} == {
        *(f"day{number}/clip.mp4" for number in range(3)),
        "text.mp4",
    }


def test_a_file_that_does_not_come_to_an_end_is_recorded_as_unusable(videos):
    for path in sorted(videos.rglob("*.mp4"))[1:]:
        path.unlink()
    build_index(str(videos), num_workers=1, timeout_seconds=1e-5)
    with pytest.raises(MidwayError, match=r"day0/clip\.mp4: takes more than 1e-05 s to read; re-e"):
        find(videos)
    assert build(videos).unusable == 0
    assert len(find(videos).clips) == 1


def test_a_folder_without_videos_has_no_index(tmp_path):
    with pytest.raises(MidwayError, match="contains no video"):
        build(tmp_path)
