"""Weights by name and address, from a hub and a web server on the loopback."""

import os
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import cast
from zlib import crc32

import pytest
from safetensors.torch import save as to_safetensors

from midway.models.encoders.vit import VisionTransformer
from midway.models.midway import MidwayNetwork
from midway.models.weights.hub import HUB_FILE, PUBLISHED, cached_at, is_address
from midway.models.weights.save import save
from tests.models.networks import ENCODER, tiny

COMMIT = "0" * 40


class Hub(ThreadingHTTPServer):
    """Files by path, and the requests that came."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.requests: list[tuple[str, str, str | None]] = []

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, format: str, *_: object) -> None:
        """Say nothing."""

    def _answer(self, *, with_body: bool) -> None:
        hub, asked = cast("Hub", self.server), self.headers.get("Range")
        hub.requests.append((self.command, self.path, asked))
        content = hub.files.get(self.path)
        if content is None:
            known = any(self.path.split("/")[1:3] == name.split("/")[1:3] for name in hub.files)
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound" if known else "RepoNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            return
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        self.send_response(206 if asked else 200)
        self.send_header("ETag", f'"{crc32(content)}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        if with_body:
            self.wfile.write(content[start:])


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[Hub]:
    """Serve a small network under every address that the tests ask for."""
    save(MidwayNetwork(tiny()), tmp_path / "served.safetensors")
    content = (tmp_path / "served.safetensors").read_bytes()
    with Hub() as server:
        published = PUBLISHED["midway-bdd-vits"]
        names = (
            f"{published.repo}/{published.file}",
            f"owner/name/{HUB_FILE}",
            "owner/name/b.safetensors",
        )
        for name in names:
            path = name.split("/", 2)
            server.files[f"/{path[0]}/{path[1]}/resolve/main/{path[2]}"] = content
        server.files["/c%20d.safetensors"] = content
        plain = "/owner/plain/resolve/main"
        server.files[f"{plain}/model.safetensors"] = to_safetensors(
            dict(VisionTransformer(ENCODER).state_dict())
        )
        server.files[f"{plain}/config.json"] = b'{"num_attention_heads": 4}'
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def info(hub: Hub, folder: Path, name: str, **variables: str) -> subprocess.CompletedProcess[str]:
    here = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder), "XDG_CACHE_HOME": str(folder)}
    return subprocess.run(
        [sys.executable, "-m", "midway.cli", "info", name],
        env=os.environ | here | {"HF_HUB_DISABLE_XET": "1"} | variables,
        capture_output=True,
        text=True,
        timeout=120,
    )


def downloads(hub: Hub) -> list[str]:
    return [path for command, path, _ in hub.requests if command == "GET" and "/api/" not in path]


@pytest.mark.parametrize(
    "name",
    ["owner/name", "hf://owner/name", "owner/name/b.safetensors", "hf://owner/name/b.safetensors"],
)
def test_a_file_of_the_hub_is_fetched_once(hub: Hub, tmp_path: Path, name: str) -> None:
    for _ in range(2):
        done = info(hub, tmp_path, name)
        assert done.returncode == 0, done.stderr
    assert len(downloads(hub)) == 1


def test_the_configuration_beside_weights_of_others_is_fetched_with_them(
    hub: Hub, tmp_path: Path
) -> None:
    for variables in ({}, {"HF_HUB_OFFLINE": "1"}):
        done = info(hub, tmp_path, "owner/plain", **variables)
        assert done.returncode == 0, done.stderr
        assert "layout: ViT backbone" in done.stdout
    assert len(downloads(hub)) == 2


def test_published_encoders_have_addresses_and_licences() -> None:
    for name, published in PUBLISHED.items():
        assert is_address(name)
        assert published.is_on_the_web or is_address(f"{published.repo}/{published.file}")
        assert "published by" in published.terms
    assert PUBLISHED["dinov2-vits14-reg4"].file == "dinov2_vits14/dinov2_vits14_reg4_pretrain.pth"


def test_a_published_network_shows_its_terms_once_and_works_offline(
    hub: Hub, tmp_path: Path
) -> None:
    first = info(hub, tmp_path, "midway-bdd-vits")
    # The test's hub serves another layout under the .pth name, which is read no further.
    assert "GPL-3.0" in first.stderr
    offline = info(hub, tmp_path, "midway-bdd-vits", HF_HUB_OFFLINE="1")
    assert "GPL-3.0" not in offline.stderr
    assert "cannot be reached" not in offline.stderr
    assert len(downloads(hub)) == 1


def test_an_interrupted_download_continues_and_is_fetched_once(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    address, content = f"{hub.address}/c%20d.safetensors", hub.files["/c%20d.safetensors"]
    copy = cached_at(address)
    copy.parent.mkdir(parents=True)
    copy.with_name(f"{copy.name}.part").write_bytes(content[:1000])
    for _ in range(2):
        done = info(hub, tmp_path, address)
        assert done.returncode == 0, done.stderr
    assert [
        asked for command, path, asked in hub.requests if command == "GET" and path in address
    ] == ["bytes=1000-"]
    assert [path.name for path in copy.parent.iterdir()] == ["c d.safetensors"]
    assert copy.read_bytes() == content


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/nothing", "the hub has no public nobody/nothing; check it"),
        (
            "owner/name/other.safetensors",
            "the hub's owner/name has no file other.safetensors; give",
        ),
        ("ADDRESS/none.pth", "cannot be downloaded (404"),
    ],
)
def test_what_is_not_there_is_refused_in_one_line(
    hub: Hub, tmp_path: Path, name: str, message: str
) -> None:
    done = info(hub, tmp_path, name.replace("ADDRESS", hub.address))
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert message in done.stderr


def test_paths_are_not_taken_for_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("runs").mkdir()
    for name in (
        "runs/missing",
        "other/missing.pth",
        "/absolute/missing",
        "missing",
        "../up/missing",
    ):
        assert not is_address(name)
    assert is_address("owner/name")
