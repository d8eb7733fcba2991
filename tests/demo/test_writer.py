"""Files of the page: what is inside, and that nothing in it points to the outside."""

import gzip
import hashlib
import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pytest
import torch

import midway
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.demo.writer import Shown, check_static, open_shown, write_page
from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from tests.models.networks import ENCODER, random_network, tiny

PAGE = Path(str(files("midway.demo") / "page"))
OWN = [path for path in PAGE.iterdir() if path.is_file()]


def test_own_files_have_at_most_350_lines():
    assert {path.suffix for path in OWN} == {".js", ".css", ".html"}
    assert max(path.read_text().count("\n") for path in OWN) <= 350


@pytest.mark.parametrize("path", OWN, ids=lambda path: path.name)
def test_nothing_points_to_the_outside(path: Path):
    addresses = re.findall(r"(?:https?:)?//[a-z][\w.-]*\.[a-z]{2,}", path.read_text())
    # The name of a format, which nobody fetches.
    assert [each for each in addresses if not each.startswith("http://www.w3.org")] == []


def test_the_runtime_is_the_one_that_its_note_says():
    note = json.loads((PAGE / "ort/SOURCE.json").read_text())
    assert (PAGE / "ort/LICENSE").read_text().startswith("MIT License")
    for name, source in note["files"].items():
        content = (PAGE / "ort" / name).read_bytes()
        content = gzip.decompress(content) if name.endswith(".gz") else content
        assert hashlib.sha256(content).hexdigest() == source["sha256"]
    size = sum(path.stat().st_size for path in (PAGE / "ort").iterdir())
    assert size < 6e6


def test_a_page_for_the_server_has_clips_but_no_network(tmp_path: Path, shown: Shown):
    write_page(tmp_path, shown)
    page = json.loads((tmp_path / "page.json").read_text())
    assert page["network"]["compute"] == "server"
    assert page["network"]["size"] is None
    assert page["network"]["shortSide"] == 32
    assert (page["network"]["window"], page["network"]["longestSide"]) == (0, 640)
    assert [clip["title"] for clip in page["clips"]] == ["Toy"]
    assert {path.name for path in OWN} < {path.name for path in tmp_path.iterdir()}
    assert not list(tmp_path.glob("*.onnx"))


def test_small_networks_are_for_the_page_and_large_ones_for_the_server(tmp_path: Path, monkeypatch):
    torch.manual_seed(0)
    midway.save(random_network(), tmp_path / "net.safetensors")
    shown = open_shown(str(tmp_path / "net.safetensors"), None)
    assert (shown.level, shown.compute) == (3, "page")
    check_static(shown, tmp_path)
    monkeypatch.setattr("midway.demo.writer.MAX_PAGE_MEGABYTES", 0.01)
    large = open_shown(str(tmp_path / "net.safetensors"), 1)
    assert (large.level, large.compute) == (1, "server")
    with pytest.raises(MidwayError, match="too slow inside a page; leave out --out"):
        check_static(large, tmp_path)
    with pytest.raises(MidwayError, match="level 7 has no forward model"):
        open_shown(str(tmp_path / "net.safetensors"), 7)


def test_a_window_is_the_suited_one_or_a_given_one_and_makes_the_input_square(tmp_path: Path):
    torch.manual_seed(0)
    network = MidwayNetwork(replace(tiny(), encoder=replace(ENCODER, image_size=(32, 48)))).eval()
    midway.save(network, tmp_path / "net.safetensors")
    shown = open_shown(str(tmp_path / "net.safetensors"), None)
    assert (shown.window, shown.size) == (64, (32, 32))
    whole = open_shown(str(tmp_path / "net.safetensors"), None, 0)
    assert (whole.window, whole.size) == (0, (32, 48))


@pytest.mark.parametrize(("window", "scale", "side"), [(0, 0.5, 640), (64, 1, 1280)])
def test_a_network_of_windows_gets_more_pixels_of_a_large_video(
    tmp_path: Path, shown: Shown, window: int, scale: float, side: int
):
    videos = write_videos(tmp_path, WorldConfig(height=64, width=1280, num_frames=8), seeds=[0])
    write_page(tmp_path, replace(shown, window=window), videos)
    page = json.loads((tmp_path / "page.json").read_text())
    assert (page["clips"][0]["scale"], page["clips"][0]["width"]) == (scale, side)
    assert page["network"]["longestSide"] == side


def test_a_missing_package_is_named_before_anything_is_written(
    tmp_path: Path, shown: Shown, monkeypatch
):
    monkeypatch.setattr("midway.demo.writer.find_spec", lambda name: None)
    with pytest.raises(MidwayError, match=r"needs onnx and onnxscript .*\[onnx\]"):
        write_page(tmp_path, replace(shown, compute="page"))
    assert not [*tmp_path.iterdir()]
