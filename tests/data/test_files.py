"""Files below a root, of every kind that lies about in folders, and by URL."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import fsspec
import pytest

from midway.data.clip import BadClipError
from midway.data.files import find_files, open_binary
from midway.data.remote import RemoteFile, UnavailableError
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


def test_links_to_files_count_as_files_and_loops_of_folders_end(folder):
    (folder / "linked.mp4").symlink_to(folder / "b/2.mp4")
    (folder / "again").symlink_to(folder)
    (folder / "b/up").symlink_to(folder)
    (folder / "b/itself").symlink_to(folder / "b/itself")
    sizes = {file.name: file.size for file in find_files(str(folder))}
    assert sizes.pop("b/itself")  # opening it raises an error
    assert sizes == {"a.txt": 5, "b/2.mp4": 7, "linked.mp4": 7}


def test_folders_behind_links_are_listed_once(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    (elsewhere / "deep").mkdir()
    (elsewhere / "deep/3.mp4").touch()
    for name in ("one", "two"):
        (folder / name).symlink_to(elsewhere)
    (folder / "three").symlink_to(folder / "b")
    names = sorted(file.name for file in find_files(str(folder)))
    assert names == ["a.txt", "b/2.mp4", "one/deep/3.mp4"]


def test_broken_links_are_counted_because_folders_may_be_missing_behind_them(folder, caplog):
    find_files(str(folder))
    assert caplog.messages == []
    for name in ("aachen", "b/bremen"):
        (folder / name).symlink_to(folder / "gone")
    find_files(str(folder))
    assert caplog.messages == [
        f"{folder}: 2 broken links, the first {folder}/aachen; mend or remove them"
    ]


@pytest.mark.parametrize("url", ["zip://videos::{}", "zip://::{}"])
def test_an_archive_is_named_as_one(tmp_path, url):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("videos/a.mp4", "no video")
    with pytest.raises(MidwayError, match=r"zip: archives are not read; extract it"):
        find_files(url.format(tmp_path / "a.zip"))


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


class Unsteady(io.BytesIO):
    """A file whose reads fail with an error of the driver, as often as `failures` says."""

    failures: ClassVar[int] = 0

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if Unsteady.failures:
            Unsteady.failures -= 1
            raise RuntimeError("ClientPayloadError\nof the driver")
        return data


def _open_by(monkeypatch: pytest.MonkeyPatch, open_file: Callable[[], object]) -> None:
    files = SimpleNamespace(info=lambda path: {}, open=lambda path, mode, **options: open_file())
    monkeypatch.setattr("midway.data.remote.file_system", lambda url: (files, url))


def test_reads_of_a_remote_file_are_repeated(monkeypatch):
    monkeypatch.setattr("midway.data.remote.RETRY_SECONDS", (0.0, 0.0))
    content = bytes(range(256))
    _open_by(monkeypatch, lambda: Unsteady(content))
    for failures in range(3):
        Unsteady.failures = failures
        with RemoteFile("unsteady://a") as file:
            file.seek(10)
            assert file.read(5) == content[10:15]
            assert file.read() == content[15:]
    Unsteady.failures = 3
    with (
        RemoteFile("unsteady://a") as file,
        pytest.raises(UnavailableError, match=r"\(ClientPayloadError of the driver\)"),
    ):
        file.read(5)


def test_an_error_without_a_text_is_named_by_its_kind_and_a_missing_file_at_once(monkeypatch):
    monkeypatch.setattr("midway.data.remote.RETRY_SECONDS", (0.0, 0.0))
    opened = []

    def fail(error: Exception) -> None:
        opened.append(error)
        raise error

    _open_by(monkeypatch, lambda: fail(TimeoutError()))
    with pytest.raises(UnavailableError, match=r"\(TimeoutError\) after 3 attempts"):
        RemoteFile("unsteady://a")
    assert len(opened) == 3
    _open_by(monkeypatch, lambda: fail(FileNotFoundError("gone")))
    with pytest.raises(FileNotFoundError):
        RemoteFile("unsteady://a")
    assert len(opened) == 4


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
