"""Command export: parts of a network as .onnx and .pt2, and what it refuses."""

import json
from pathlib import Path

import pytest
import torch

from midway.cli import main
from midway.models.flow.base import DptConfig
from midway.models.flow.network import FlowNetwork, save_flow_network
from midway.models.weights.save import save
from tests.export.networks import network_of

DPT = DptConfig(widths=(8, 8, 8, 8), fused_width=8, last_width=8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """A network, its encoder and a flow network, as files."""
    folder, network = tmp_path_factory.mktemp("files"), network_of("tiny")
    save(network, folder / "net.safetensors")
    save(network.encoder, folder / "encoder.safetensors")
    flow = FlowNetwork.from_pretrained(network, DPT, (32, 32))
    save_flow_network(flow, folder / "flow.safetensors")
    return {path.stem: str(path) for path in folder.iterdir()}


def exported(words: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[str, dict]:
    """Return the first line and the result of the command."""
    assert main(["export", *words, "--json"]) == 0
    first, *_, last = capsys.readouterr().out.splitlines()
    return first, json.loads(last)


def test_the_part_and_its_largest_difference_are_printed(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("onnxscript", reason="the packages for ONNX are not installed")
    target = str(tmp_path / "x.onnx")
    words = [files["net"], target, "--part", "encoder", "--weights", "student", "--level", "1"]
    line, found = exported([*words, "--size", "32", "48"], capsys)
    assert line.startswith(
        "encoder, 32 x 48 pixels: images to level1, class_token; largest difference from torch "
    )
    assert found["part"] == "encoder"
    assert found["bytes"] == Path(target).stat().st_size
    assert max(found["differences"].values()) < 1e-4
    assert main(["export", *words]) == 2
    assert "exists already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("network", "words", "part", "size"),
    [
        ("net", [], "network", [32, 32]),
        ("net", ["--part", "heatmap", "--draws", "2", "--seed", "3"], "heatmap", [32, 32]),
        ("net", ["--part", "flow", "--radius", "1", "--level", "1"], "flow", [32, 32]),
        ("net", ["--weights", "teacher"], "encoder", [32, 32]),
        ("encoder", ["--size", "16", "16"], "encoder", [16, 16]),
        ("flow", ["--size", "32", "48"], "flow", [32, 48]),
        ("flow", ["--part", "encoder"], "encoder", [32, 32]),
    ],
)
def test_the_parts_of_each_network_are_written_for_torch(
    files, network, words, part, size, tmp_path: Path, capsys, monkeypatch: pytest.MonkeyPatch
) -> None:
    from midway.export import write

    # The program itself is tested with its part; here, only which part the options make.
    made = []
    monkeypatch.setitem(write.FORMATS, ".pt2", (lambda *given: made.append(given), _run(made)))
    Path(tmp_path / "x.pt2").touch()
    target = str(tmp_path / "x.pt2")
    _, found = exported([files[network], target, "--overwrite", *words], capsys)
    assert (found["part"], found["size"]) == (part, size)
    if part == "heatmap":
        described = made[0][2]
        assert (described["level"], described["draws"], described["seed"]) == (1, 2, 3)


def _run(made: list):
    @torch.no_grad()
    def run(path, inputs):
        return made[0][0](*inputs.values())

    return run


@pytest.mark.parametrize(
    ("network", "target", "words", "message"),
    [
        ("net", "x.onnx", ["--part", "heatmap", "--level", "2"], "level 2 has no forward model"),
        ("net", "x.onnx", ["--part", "flow", "--level", "1", "2"], "have one level; give one"),
        (
            "net",
            "x.pt2",
            ["--part", "flow", "--weights", "teacher"],
            "needs a whole Midway network",
        ),
        ("encoder", "x.onnx", ["--part", "heatmap"], "needs a whole Midway network"),
        ("encoder", "x.safetensors", ["--part", "network"], "no whole network; give --part"),
        ("flow", "x.onnx", ["--part", "heatmap"], "a flow network has no heatmap"),
        ("net", "x.onnx", ["--half"], "half is for .safetensors and .pth"),
        ("net", "x.safetensors", ["--part", "flow"], "is a computation, not weights"),
        ("net", "x.safetensors", ["--size", "32", "32"], "are for .onnx and .pt2; leave them out"),
        ("net", "x.onnx", ["--size", "30", "32"], "must be multiples of the patch size 8"),
        ("net", "x.tflite", [], "give a name ending in one of .onnx, .pt2, .safetensors, .pth"),
    ],
)
def test_what_does_not_fit_together_is_refused(
    files, network, target, words, message, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["export", files[network], str(tmp_path / target), *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not (tmp_path / target).exists()


def test_a_safetensors_header_has_heads_and_normalisation(
    files: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from safetensors import safe_open

    target = tmp_path / "x.safetensors"
    exported([files["net"], str(target), "--part", "encoder"], capsys)
    with safe_open(target, framework="pt") as opened:
        config = json.loads(opened.metadata()["encoders"])["encoder"]["config"]
    assert config["heads"] == 2
    assert config["image_size"] == [32, 32]
    assert config["mean"] == [0.485, 0.456, 0.406]
    assert config["std"] == [0.229, 0.224, 0.225]
