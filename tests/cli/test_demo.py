"""midway demo: a folder, a server, one line for what is wrong."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from socket import create_server
from urllib.request import urlopen

import pytest
import torch

import midway
from midway.cli import main
from midway.models.flow.network import FlowNetwork, save_flow_network
from tests.models.flow.test_network import CONFIG
from tests.models.networks import random_network


@pytest.fixture
def network(tmp_path: Path) -> str:
    torch.manual_seed(0)
    midway.save(random_network(), tmp_path / "net.safetensors")
    return str(tmp_path / "net.safetensors")


def complaint(capsys, *words: str) -> str:
    assert main(["demo", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line


def test_wrong_input_gets_one_line(network: str, tmp_path: Path, capsys):
    notes = tmp_path / "notes.mp4"
    notes.write_text("no video")
    folder = ("--network", network, "--out", str(tmp_path / "out"))
    assert "gone.mp4: no such file" in complaint(capsys, str(tmp_path / "gone.mp4"), *folder)
    assert "notes.mp4: " in complaint(capsys, str(notes), *folder)
    assert "level 9 has no forward model" in complaint(capsys, "--level", "9", *folder)
    assert "--window -1: give 1 or more pixels" in complaint(capsys, "--window", "-1", *folder)
    assert not [*tmp_path.glob("out/*")]


def test_a_flow_network_is_refused_by_its_kind(tmp_path: Path, capsys):
    save_flow_network(FlowNetwork(CONFIG), tmp_path / "flow.safetensors")
    line = complaint(capsys, "--network", str(tmp_path / "flow.safetensors"))
    assert "flow.safetensors: a flow network, which predicts flow only; give a Midway" in line


@pytest.mark.parametrize(
    ("words", "window"),
    [((), 192), (("--window", "0"), 0), (("--window", "150"), 150)],
)
def test_the_default_network_sees_a_window_unless_it_is_chosen(
    words: tuple[str, ...], window: int, tmp_path: Path, monkeypatch
):
    written = []
    monkeypatch.setattr(
        "midway.cli.demo.write_page", lambda folder, shown, videos: written.append(shown)
    )
    assert main(["demo", "--out", str(tmp_path / "out"), *words]) == 0
    assert [(shown.name, shown.window) for shown in written] == [("midway-tiny", window)]


def test_a_port_in_use_gets_one_line_before_anything_is_written(network: str, capsys):
    with create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        line = complaint(capsys, "--network", network, "--port", port)
    assert line.startswith(f"midway: port {port} of 127.0.0.1: Address already in use")
    assert "choose another with --port" in line


def test_a_large_network_is_not_for_a_static_page(
    network: str, tmp_path: Path, monkeypatch, capsys
):
    monkeypatch.setattr("midway.demo.writer.MAX_PAGE_MEGABYTES", 0.01)
    line = complaint(capsys, "--network", network, "--out", str(tmp_path / "out"))
    assert "too slow inside a page" in line
    assert not (tmp_path / "out").exists()


SERVE = """
from dataclasses import replace
from midway.cli import main
from midway.demo import clips, writer
clips.ENLARGED, writer.BUNDLED, writer.MAX_PAGE_MEGABYTES = 1, (clips.CROWD,), 0.01
raise SystemExit(main(["demo", "--network", {network!r}, "--port", "0", "--json"]))
"""


@pytest.mark.slow
def test_the_server_says_its_address_and_ends_with_a_signal(network: str):
    words = [sys.executable, "-c", SERVE.format(network=network)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        assert address.startswith("http://127.0.0.1:")
        with urlopen(f"{address}page.json") as response:
            assert json.load(response)["network"]["compute"] == "server"
        process.send_signal(signal.SIGTERM)
        result = json.loads(process.stdout.readlines()[-1])
    assert process.returncode == 0
    assert result == {"address": address, "network": network}
