"""The server: answers, limits, bounded memory, errors in one line."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from midway.demo.app import MAX_BYTES, QUEUE, DemoServer, Request, looker
from midway.demo.part import PagePart
from midway.demo.writer import Shown
from midway.errors import MidwayError
from midway.nn.images import normalise
from tests.demo.browser import serving

BODY = 2 * 3 * 32 * 40
QUERY = "rows=4&columns=5&token=0,7"


def ask(
    server: DemoServer, method: str, path: str, body: bytes = b"", **headers: str
) -> tuple[int, Any]:
    connection = HTTPConnection(*server.server_address[:2], timeout=120)
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        content = response.read()
        is_json = response.headers["Content-Type"] == "application/json"
        return response.status, json.loads(content) if is_json else content
    finally:
        connection.close()


def test_the_answer_is_that_of_the_network(tmp_path: Path, shown: Shown, monkeypatch):
    monkeypatch.setattr("midway.demo.app.fast_dtype", lambda device: torch.float32)
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (2, 3, 32, 40), dtype=np.uint8)
    queries = rng.normal(size=(2, 24)).astype(np.float32)
    with serving(tmp_path, looker(shown), shown) as server:
        body = pixels.tobytes() + queries.tobytes()
        status, found = ask(server, "POST", f"/look?{QUERY}", body)
        _, without = ask(server, "POST", f"/look?{QUERY}", pixels.tobytes())
    assert status == 200
    images = normalise(torch.from_numpy(pixels).float(), white=255).split(1)
    part = PagePart(shown.network, (32, 40), level=2).eval()
    with torch.no_grad():
        want = part(*images, torch.tensor([0, 7]), torch.from_numpy(queries))
    assert found.keys() == want.keys()
    for name, value in want.items():
        torch.testing.assert_close(torch.tensor(found[name]), value.flatten(1), atol=2e-5, rtol=0)
    assert without["heat"] == found["heat"]
    assert not np.any(without["similarity"])


def test_a_hundred_requests_at_once_hold_the_memory_of_a_few(tmp_path: Path, shown: Shown):
    held, most, lock = 0, 0, threading.Lock()
    everyone_has_asked = threading.Event()

    def look(request: Request) -> dict[str, Any]:
        everyone_has_asked.wait(60)
        return {"sum": int(request.images.sum())}

    read = Request.read

    def counting_read(self: Request, body: bytes) -> None:
        nonlocal held, most
        with lock:
            held += 1
            most = max(most, held)
        read(self, body)

    def one(number: int) -> int:
        nonlocal held
        status, answer = ask(server, "POST", f"/look?{QUERY}", bytes([number]) * BODY)
        if status == 200:
            assert answer["sum"] == number * BODY
            with lock:
                held -= 1
        else:
            assert (status, answer["error"]) == (503, "busy; ask again")
            with lock:
                refused.append(number)
                # The queue is full and keeps so: all others are refused as well.
                if len(refused) == 100 - QUEUE:
                    everyone_has_asked.set()
        return status

    refused: list[int] = []
    with pytest.MonkeyPatch.context() as patch, serving(tmp_path, look, shown) as server:
        patch.setattr(Request, "read", counting_read)
        with ThreadPoolExecutor(100) as pool:
            statuses = list(pool.map(one, range(100)))
        assert most <= QUEUE
        assert statuses.count(200) == QUEUE
        assert ask(server, "POST", f"/look?{QUERY}", bytes(BODY))[0] == 200  # free again


@pytest.mark.parametrize(
    ("query", "size", "status", "words"),
    [
        (QUERY, 7, 400, "7 bytes are no pair of 32 x 40 pixels"),
        ("rows=4", BODY, 400, "needs rows, columns and token"),
        ("rows=4&columns=5&token=20", BODY, 400, "token: outside the picture"),
        ("rows=4&columns=5&token=1,2,3,4,5", BODY, 400, "5 patches: too many"),
        ("rows=2000&columns=2000&token=0", BODY, 400, "must have 1 to 1024"),
        ("rows=0&columns=5&token=0", BODY, 400, "must have 1 to 1024"),
    ],
)
def test_an_upload_that_is_no_pair_of_pictures_gets_one_line(
    tmp_path: Path, shown: Shown, query: str, size: int, status: int, words: str
):
    with serving(tmp_path, lambda request: {}, shown) as server:
        found, answer = ask(server, "POST", f"/look?{query}", bytes(size))
    assert found == status
    assert words in answer["error"]
    assert "\n" not in answer["error"]


def test_an_upload_over_the_limit_is_not_read(tmp_path: Path, shown: Shown):
    with serving(tmp_path, lambda request: {}, shown) as server:
        length = {"Content-Length": str(MAX_BYTES + 1)}
        assert ask(server, "POST", f"/look?{QUERY}", **length)[0] == 413
        assert ask(server, "POST", f"/look?{QUERY}", **{"Content-Length": "much"})[0] == 411


def test_a_network_that_fails_gives_its_reason_and_the_server_goes_on(tmp_path: Path, shown: Shown):
    def look(request: Request) -> dict[str, Any]:
        raise RuntimeError("no memory\nleft")

    with serving(tmp_path, look, shown) as server:
        for _ in range(QUEUE + 1):
            status, answer = ask(server, "POST", f"/look?{QUERY}", bytes(BODY))
            assert (status, answer["error"]) == (500, "the network failed (no memory left)")


def test_files_are_served_from_the_folder_only(tmp_path: Path, shown: Shown):
    folder = tmp_path / "page"
    (folder / "sub").mkdir(parents=True)
    (folder / "app.js").write_text("1")
    (tmp_path / "secret").write_text("secret")
    with serving(folder, None, shown) as server:
        assert ask(server, "GET", "/app.js") == (200, b"1")
        for path in ("/../secret", "/%2e%2e/secret", "/sub/", "/"):
            status, content = ask(server, "GET", path)
            assert status == 404
            assert b"secret" not in content
        assert ask(server, "POST", f"/look?{QUERY}", bytes(BODY))[0] == 404  # computes in the page


def test_a_port_in_use_is_named(tmp_path: Path, shown: Shown):
    with serving(tmp_path, None, shown) as server:
        port = server.server_address[1]
        with pytest.raises(MidwayError, match=rf"port {port} of 127\.0\.0\.1: .*in use; .*--port"):
            DemoServer(tmp_path, None, patch=8, dim=24, host="127.0.0.1", port=port)
    with pytest.raises(MidwayError, match=r"port 70000 .*--port"):
        DemoServer(tmp_path, None, patch=8, dim=24, host="127.0.0.1", port=70000)


def test_a_name_of_another_site_that_points_to_the_loopback_is_refused(
    tmp_path: Path, shown: Shown
):
    (tmp_path / "page.json").write_text("{}")
    with serving(tmp_path, None, shown) as server:
        status, answer = ask(server, "GET", "/page.json", Host="evil.example:80")
        assert (status, answer["error"][:19]) == (403, "host evil.example: ")
        port = server.server_address[1]
        assert ask(server, "GET", "/page.json", Host=f"localhost:{port}") == (200, {})
