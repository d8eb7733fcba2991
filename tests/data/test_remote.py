"""Files behind URLs that fail now and then, for ever, or send no parts."""

import http.server
import io
import re
import struct
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem

from midway.data import remote
from midway.data.clip import BadClipError
from midway.data.clips.find import find_clips
from midway.data.clips.skipped import SkipLog, SkippedClip
from midway.data.files import find_files, open_binary
from midway.data.remote import RemoteFile, UnavailableError
from midway.data.remote_blocks import BLOCK_BYTES
from midway.data.video.file import VideoFile
from midway.data.video.frame_times import read_timing
from midway.errors import MidwayError
from tests.data.video.made_videos import even_times, write_video


class PayloadError(Exception):
    """An error of a network library, which is no `OSError`."""


class Flaky(MemoryFileSystem):
    """Files in memory, behind a connection that fails the next `failures` times."""

    protocol = "flaky"
    failures = 0
    error: type[Exception] = PayloadError

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return MemoryFileSystem._strip_protocol(path.replace("flaky://", "memory://"))

    @classmethod
    def fail(cls) -> None:
        if Flaky.failures:
            Flaky.failures -= 1
            raise cls.error("connection lost\nwhile reading")

    def _open(self, path: str, *args: Any, **options: Any) -> Any:
        file, fail = super()._open(path, *args, **options), self.fail

        class File:
            def read(self, size: int = -1) -> bytes:
                fail()
                return file.read(size)

            def __getattr__(self, name: str) -> Any:
                return getattr(file, name)

        return File()


@pytest.fixture
def flaky(monkeypatch: pytest.MonkeyPatch) -> Iterator[type[Flaky]]:
    fsspec.register_implementation("flaky", Flaky, clobber=True)
    monkeypatch.setattr(remote, "RETRY_SECONDS", (0.0, 0.0))
    Flaky.failures, Flaky.error = 0, PayloadError
    MemoryFileSystem.store.clear()
    yield Flaky
    MemoryFileSystem.store.clear()


@pytest.mark.parametrize("error", [PayloadError, ConnectionResetError, TimeoutError])
def test_a_connection_that_fails_twice_is_tried_again_where_it_was(flaky, error):
    flaky.error = error
    fsspec.filesystem("memory").pipe("/a.bin", bytes(range(100)))
    with RemoteFile("flaky://a.bin") as file:
        assert file.read(10) == bytes(range(10))
        flaky.failures = 2
        assert file.read(10) == bytes(range(10, 20))
        assert file.seek(-5, 2) == 95
        flaky.failures = 1
        assert file.read() == bytes(range(95, 100))
        assert file.tell() == 100


def test_a_connection_that_stays_away_is_one_line_and_no_bad_clip(flaky):
    fsspec.filesystem("memory").pipe("/a.bin", b"abc")
    flaky.failures = 100
    message = r"^flaky://a.bin: cannot be read .*\(connection lost while reading\) after 3 attempts"
    with open_binary("flaky://a.bin") as file, pytest.raises(UnavailableError, match=message):
        file.read()


def test_a_root_that_stays_away_is_one_line_and_not_taken_for_one_without_index(flaky, caplog):
    flaky.failures = 100
    with fsspec.open("memory://videos/midway-index.jsonl", "wb") as file:
        file.write(b"{}")
    with pytest.raises(UnavailableError, match=r"index\.jsonl: cannot be read at the moment"):
        find_clips("flaky://videos", fps=30, gap_seconds=(0.5, 1.0))
    assert caplog.messages == []


def test_what_is_not_there_is_asked_for_once(flaky, monkeypatch):
    monkeypatch.setattr(remote, "RETRY_SECONDS", (1000.0,))
    with pytest.raises(FileNotFoundError):
        open_binary("flaky://no/file.bin")


def test_a_video_is_read_over_a_connection_that_fails_now_and_then(flaky, tmp_path):
    path = write_video(tmp_path / "a.mp4", even_times(20))
    fsspec.filesystem("memory").pipe("/a.mp4", path.read_bytes())
    with VideoFile(str(path)) as local:
        expected = local.frames_at([0.0, 1.5])
    flaky.failures = 2
    with VideoFile("flaky://a.mp4") as video:
        flaky.failures = 2
        frames = video.frames_at([0.0, 1.5])
    for frame, same in zip(frames, expected, strict=True):
        assert frame.seconds == same.seconds
        assert (frame.image == same.image).all()
    flaky.failures = 10**6
    with pytest.raises(UnavailableError, match=r"^flaky://a\.mp4: cannot be read at the moment"):
        VideoFile("flaky://a.mp4")


def test_failures_of_the_network_are_warnings_and_no_bad_clips(tmp_path, caplog):
    log = SkipLog(total=4, max_share=0.25, folder=tmp_path)
    log.add([SkippedClip(name, f"{name}: lost", is_temporary=True) for name in "abcd"], write=True)
    assert len(log) == 0
    assert caplog.text.count("another clip replaced it") == 4
    assert not (tmp_path / "skipped.jsonl").exists()
    assert "a: lost; another clip replaced it this time" in caplog.text
    log.add([SkippedClip("a", "a: damaged")], write=True)
    assert (tmp_path / "skipped.jsonl").read_text() == '{"clip": "a", "reason": "a: damaged"}\n'
    with pytest.raises(MidwayError, match="2 of 4 clips"):
        log.add([SkippedClip("b", "b: damaged")], write=True)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own server, which knows no ranges."""

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""


class QuietServer(http.server.ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing when the client goes away in the middle of a file."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    handler = partial(Quiet, directory=str(tmp_path))
    with QuietServer(("127.0.0.1", 0), handler) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


@pytest.mark.timeout(60)
def test_a_server_without_ranges_is_one_line(server, tmp_path):
    pytest.importorskip("aiohttp")
    (tmp_path / "large.bin").write_bytes(bytes(20 << 20))
    (tmp_path / "small.bin").write_bytes(b"abc")
    with open_binary(f"{server}/small.bin") as file:
        assert file.read() == b"abc"
    with open_binary(f"{server}/large.bin") as file:
        file.seek(15 << 20)
        with pytest.raises(BadClipError, match=r"large\.bin: cannot be read in parts .*download"):
            file.read(10)


class Ranged(Quiet):
    """A server that sends parts of files, and lists what it was asked for."""

    requests: ClassVar[list[tuple[str, int]]] = []
    """Method and bytes sent of each request."""
    tag = "first"
    """Mark of the version of all files."""

    def send_head(self) -> io.BytesIO:
        data = Path(self.translate_path(self.path)).read_bytes()
        asked = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        start, end = (int(asked[1]), int(asked[2]) + 1) if asked else (0, len(data))
        part = data[start:end] if self.command == "GET" else b""
        Ranged.requests.append((self.command, len(part)))
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", Ranged.tag)
        self.send_header("Content-Length", str(len(data[start:end])))
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        self.end_headers()
        return io.BytesIO(part)


@pytest.fixture
def ranged(tmp_path: Path) -> Iterator[str]:
    pytest.importorskip("aiohttp")
    with QuietServer(("127.0.0.1", 0), partial(Ranged, directory=str(tmp_path))) as served:
        threading.Thread(target=served.serve_forever, daemon=True).start()
        Ranged.tag = "first"
        Ranged.requests.clear()
        yield f"http://127.0.0.1:{served.server_port}"
        served.shutdown()


def sent() -> tuple[int, int]:
    """Requests for content, and bytes sent, since the last call."""
    got = [size for method, size in Ranged.requests if method == "GET"]
    Ranged.requests.clear()
    return len(got), sum(got)


def large_video(folder: Path) -> Path:
    """A video of 16 MB: the tables at its end follow a box that players skip."""
    video = write_video(folder / "made.mp4", even_times(20))
    data = video.read_bytes()
    free = struct.pack(">I4s", 16 << 20, b"free") + bytes((16 << 20) - 8)
    video.write_bytes(data[: data.index(b"moov") - 4] + free + data[data.index(b"moov") - 4 :])
    return video


@pytest.mark.timeout(60)
def test_the_header_of_a_large_file_takes_two_blocks_and_its_frames_no_more(ranged, tmp_path):
    with VideoFile(str(large_video(tmp_path))) as local:
        expected = local.frames_at([0.5, 1.5])
    assert read_timing(f"{ranged}/made.mp4").fps == 10
    requests, size = sent()
    assert requests <= 3
    assert 0 < size <= 3 * BLOCK_BYTES
    # The pictures are in the first block, which is kept for the next opening.
    with VideoFile(f"{ranged}/made.mp4") as video:
        frames = video.frames_at([0.5, 1.5])
    assert sent() == (0, 0)
    for frame, same in zip(frames, expected, strict=True):
        assert (frame.image == same.image).all()


@pytest.mark.timeout(60)
def test_a_file_that_changes_behind_its_url_is_fetched_again(ranged, tmp_path):
    (tmp_path / "a.bin").write_bytes(b"before")
    for content, tag in ((b"before", "first"), (b"after.", "second")):
        Ranged.tag = tag
        (tmp_path / "a.bin").write_bytes(content)
        for _ in range(2):
            with open_binary(f"{ranged}/a.bin") as file:
                assert file.read() == content
        assert sent() == (1, 6)


@pytest.mark.timeout(60)
def test_two_readers_of_one_url_do_not_share_a_file(ranged, tmp_path):
    (tmp_path / "a.bin").write_bytes(bytes(range(100)))
    with open_binary(f"{ranged}/a.bin") as one, open_binary(f"{ranged}/a.bin") as other:
        assert one.read(10) == bytes(range(10))
        assert other.read(5) == bytes(range(5))
        assert one.read(5) == bytes(range(10, 15))


def test_a_file_system_that_fails_when_it_is_made_is_one_line(monkeypatch):
    def refuse(url: str) -> None:
        raise PayloadError("All connection attempts failed")

    monkeypatch.setattr(remote, "url_to_fs", refuse)
    message = r"^hf://x: cannot be opened \(All connection attempts failed\); check the URL"
    with pytest.raises(MidwayError, match=message):
        find_files("hf://x")
