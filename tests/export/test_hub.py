"""Networks are shared with a card, and come back the same, through a hub on the loopback."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import cast

import pytest

import midway
from midway.cli import main
from midway.errors import MidwayError
from midway.models.encoders.vit import VisionTransformer
from midway.models.midway import MidwayNetwork
from midway.models.weights.save import save
from midway.models.weights.sources import weights_hash
from tests.models.networks import ENCODER, same_weights, tiny
from tests.models.weights import test_hub

COMMIT = "1" * 40


class Hub(test_hub.Hub):
    """Hub that also takes uploads."""

    def __init__(self) -> None:
        super().__init__()
        self.RequestHandlerClass = Handler
        self.created: list[dict] = []


class Handler(test_hub.Handler):
    def do_POST(self) -> None:  # noqa: N802
        hub, body = cast("Hub", self.server), self.rfile.read(int(self.headers["Content-Length"]))
        lines = [json.loads(line) for line in body.splitlines()]
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self._json({"error": "Invalid credentials"}, status=401)
        if self.path == "/api/repos/create":
            hub.created += lines
            name = f"{lines[0]['organization']}/{lines[0]['name']}"
            return self._json({"url": f"{hub.address}/{name}", "name": name})
        if "/preupload/" in self.path:
            files = [
                {"path": each["path"], "uploadMode": "regular", "shouldIgnore": False}
                for each in lines[0]["files"]
            ]
            return self._json({"files": files})
        if "/commit/" in self.path:
            repo = "/".join(self.path.split("/")[3:5])
            for line in lines:
                if line["key"] == "file":
                    name, content = line["value"]["path"], line["value"]["content"]
                    hub.files[f"/{repo}/resolve/main/{name}"] = base64.b64decode(content)
            address = f"{hub.address}/{repo}/commit/{COMMIT}"
            return self._json({"commitUrl": address, "commitOid": COMMIT, "success": True})
        return self._json({"errors": [], "warnings": []})

    def _json(self, values: dict, *, status: int = 200) -> None:
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with Hub() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def python(
    hub: Hub, folder: Path, *words: str, token: str = "hf_right"
) -> subprocess.CompletedProcess:
    """Run Python with this hub, whose address the library reads when it is imported."""
    here = {"HF_ENDPOINT": hub.address, "HF_HOME": str(folder / "home"), "HF_TOKEN": token}
    return subprocess.run(
        [sys.executable, *words],
        env=os.environ | here | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )


def results_of(network: MidwayNetwork | VisionTransformer, folder: Path) -> Path:
    values = {
        "protocol": {"name": "flow sintel clean", "version": "0123456789ab"},
        "weights_sha256": weights_hash(network),
        "epe": 3.14159,
        "pairs": 12,
        "seconds": 1.5,
        "levels": {"9": {"near": 0.25}},
        "date": "2026-11-30T00:00:00+00:00",
        "environment": {"device": "cpu"},
    }
    folder.mkdir(exist_ok=True)
    path = folder / "results.json"
    path.write_text(json.dumps(values))
    return path


def test_a_network_is_uploaded_with_its_card_and_comes_back_the_same(
    hub: Hub, tmp_path: Path
) -> None:
    network = MidwayNetwork(tiny())
    save(network, tmp_path / "net.safetensors")
    scores = str(results_of(network, tmp_path / "scores"))
    words = ["share", str(tmp_path / "net.safetensors"), "owner/name", "--licence", "apache-2.0"]
    words += ["--data", "Shapes that move.", "--cost", "Two cores, an hour.", "--private"]
    done = python(hub, tmp_path, "-m", "midway.cli", *words, "--results", scores)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"owner/name: uploaded ({hub.address}/owner/name/commit/{COMMIT})\n"
    assert hub.created[0]["visibility"] == "private"
    card = hub.files["/owner/name/resolve/main/README.md"].decode()
    assert card.startswith("---\nlibrary_name: midway\nlicense: apache-2.0\ntags:\n")
    for text in ("Shapes that move.", "Two cores, an hour.", 'load_encoder("owner/name")'):
        assert text in card
    row = "| flow sintel clean | 0123456789ab | {} | 2026-11-30 | cpu |"
    assert row.format("epe | 3.142") in card
    assert row.format("level 9 near | 0.25") in card
    assert "pairs" not in card
    assert weights_hash(network) in card
    read = (
        "import midway\n"
        "one = midway.HubModel.from_pretrained('owner/name').network\n"
        "two = midway.load('owner/name')\n"
        "midway.save(one, __import__('pathlib').Path('one.safetensors'))\n"
        "assert one.config == two.config\n"
    ).replace("one.safetensors", str(tmp_path / "one.safetensors"))
    done = python(hub, tmp_path, "-c", read)
    assert done.returncode == 0, done.stderr
    assert same_weights(midway.load(tmp_path / "one.safetensors"), network)


def test_an_encoder_goes_through_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    encoder = VisionTransformer(ENCODER)
    save(encoder, tmp_path / "encoder.safetensors")
    words = ["share", str(tmp_path / "encoder.safetensors"), "owner/name", "--licence", "mit"]
    assert main([*words, "--out", str(tmp_path / "out")]) == 0
    assert capsys.readouterr().out.endswith("out: README.md, config.json, model.safetensors\n")
    found = midway.HubModel.from_pretrained(tmp_path / "out").network
    assert weights_hash(found) == weights_hash(encoder)
    assert "Encoder (vit)" in (tmp_path / "out" / "README.md").read_text()
    assert weights_hash(midway.load_encoder(str(tmp_path / "out"))) == weights_hash(encoder)


def test_what_the_hub_refuses_is_one_line(hub: Hub, tmp_path: Path) -> None:
    words = ["-m", "midway.cli", "share", "synthetic-tiny", "owner/name", "--licence", "mit"]
    done = python(hub, tmp_path, *words, token="hf_wrong")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "owner/name: cannot be uploaded" in done.stderr
    assert "log in with `hf auth login`" in done.stderr
    read = (
        "import midway\n"
        "try: midway.HubModel.from_pretrained('owner/none')\n"
        "except midway.errors.MidwayError as error: print(error)\n"
    )
    done = python(hub, tmp_path, "-c", f"import midway.errors\n{read}")
    assert "owner/none: the hub has no model.safetensors there" in done.stdout, done.stderr


def test_a_card_needs_a_licence_and_scores_of_these_weights(tmp_path: Path) -> None:
    with pytest.raises(MidwayError, match="licence: none given; give one by the hub's name"):
        midway.Card(licence=" ")
    network, other = MidwayNetwork(tiny()), MidwayNetwork(tiny())
    card = midway.Card(licence="mit", results=(results_of(other, tmp_path),))
    with pytest.raises(
        MidwayError, match=r"has the results of other weights .*; evaluate the network that"
    ):
        card.text(network, "owner/name")
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(MidwayError, match=r"no results of an evaluation; give a results.json"):
        card.text(network, "owner/name")
    with pytest.raises(MidwayError, match=r"model card: none given; give HubModel a midway.Card"):
        midway.HubModel(network).save_pretrained(tmp_path)
