"""Files below a root, of every kind that lies about in folders, and by URL."""

import os
from pathlib import Path

import fsspec
import pytest

from midway.data.clip import BadClipError
from midway.data.files import find_files, open_binary
from midway.errors import MidwayError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("b/2.mp4", "a.txt", ".hidden/c.mp4", "b/.d.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    return tmp_path


@pytest.mark.parametrize("scheme", ["", "file://", "memory://"])
def test_files_have_names_below_the_root_sizes_and_content(folder, scheme):
    root = f"{scheme}{folder}"
    if scheme == "memory://":
        fsspec.filesystem("memory").put(str(folder), str(folder), recursive=True)
    found = sorted(find_files(root), key=lambda file: file.name)
    assert [(file.name, file.size) for file in found] == [("a.txt", 5), ("b/2.mp4", 7)]
    for file in found:
        with open_binary(file.location) as opened:
            assert opened.read() == file.name.encode()
    (single,) = find_files(f"{root}/b/2.mp4")
    assert (single.name, single.location) == ("2.mp4", found[1].location)


def test_a_file_that_changes_is_told_from_what_it_was(folder):
    before = {file.name: file for file in find_files(str(folder))}
    os.utime(folder / "a.txt", ns=(0, 1))
    (folder / "b/2.mp4").write_text("longer than before")
    after = {file.name: file for file in find_files(str(folder))}
    assert before["a.txt"].modified != after["a.txt"].modified
    assert before["b/2.mp4"].size != after["b/2.mp4"].size


def test_links_to_files_count_as_files_and_links_to_folders_are_not_followed(folder):
    (folder / "linked.mp4").symlink_to(folder / "b/2.mp4")
    (folder / "again").symlink_to(folder)
    sizes = {file.name: file.size for file in find_files(str(folder))}
    assert sizes == {"a.txt": 5, "b/2.mp4": 7, "linked.mp4": 7}


@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.timeout(20)
def test_what_cannot_be_opened_is_listed_and_refused_at_once(tmp_path, scheme):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "endless.mp4").symlink_to("/dev/zero")
    (tmp_path / "gone.mp4").symlink_to(tmp_path / "nowhere")
    found = {file.name: file.location for file in find_files(f"{scheme}{tmp_path}")}
    assert found.keys() == {"pipe.mp4", "endless.mp4", "gone.mp4"}
    for name, message in (
        ("pipe.mp4", "is not a regular file; replace it"),
        ("endless.mp4", "is not a regular file; replace it"),
        ("gone.mp4", "No such file"),
    ):
        with pytest.raises((OSError, BadClipError), match=message):
            open_binary(found[name])


@pytest.mark.parametrize(
    ("url", "message"),
    [
        (
            "nosuch://bucket/videos",
            r"cannot be opened \(Protocol not known: nosuch\); check the URL",
        ),
        ("memory://nowhere", "does not exist or is empty; give a folder with files"),
    ],
)
def test_a_url_that_leads_nowhere_is_told_in_one_line(url, message):
    with pytest.raises(MidwayError, match=message) as error:
        find_files(url)
    assert str(error.value).startswith(url)


def test_a_file_system_that_fails_is_told_in_one_line(monkeypatch):
    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("no credentials")

    monkeypatch.setattr(type(fsspec.filesystem("memory")), "find", refuse)
    with pytest.raises(MidwayError, match=r"memory://x: cannot be listed \(no credentials\)"):
        find_files("memory://x")
