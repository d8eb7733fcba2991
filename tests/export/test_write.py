"""Files of parts: onnxruntime and torch.export compute what torch does, for batches of any size."""

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import midway
from midway.errors import MidwayError
from midway.export import onnx, write
from midway.export.heatmap import HeatmapPart
from midway.export.matching import MatchingPart
from midway.export.onnx import METADATA, run_onnx
from midway.export.parts import EncoderPart, FlowPart, NetworkPart, Part
from midway.export.write import TOLERANCE, write_part
from midway.models.flow.base import DptConfig
from midway.models.flow.network import FlowNetwork
from midway.models.midway import MidwayNetwork
from tests.export.networks import network_of

# For each network, two sizes and a level: that of its position tables, and one that resamples them.
SIZES = {
    "synthetic-tiny": {(48, 48): 1, (48, 64): 1},
    "whole_vit_small": {(64, 96): 9, (80, 64): 9},
}
DPT = DptConfig(widths=(8, 8, 8, 8), fused_width=8, last_width=8)
PARTS = {
    "encoder": lambda net, size, level: EncoderPart(net.encoder, size, (level, -1)),
    "network": lambda net, size, level: NetworkPart(net, size),
    "heatmap": lambda net, size, level: HeatmapPart(net, size, level=level, num_draws=4),
    "flow": lambda net, size, level: MatchingPart(net, size, level=level, radius=1),
}


@pytest.fixture(scope="module", params=SIZES)
def whole(request: pytest.FixtureRequest) -> tuple[str, MidwayNetwork]:
    """The bundled network, and one of ViT-S's width and depth with fresh weights."""
    is_bundled = request.param == "synthetic-tiny"
    return request.param, midway.load(request.param) if is_bundled else network_of(request.param)


@pytest.mark.slow
@pytest.mark.timeout(1200)  # ViT-S takes 20 s of CPU time, beside other tests more of the clock
@pytest.mark.parametrize("second", [False, True], ids=["trained size", "another size"])
@pytest.mark.parametrize("part", PARTS)
def test_onnxruntime_equals_torch_for_whole_networks(part, second, whole, tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the packages for ONNX are not installed")
    name, network = whole
    size, level = list(SIZES[name].items())[second]
    # `write_part` compares for a batch of 3, which is not the traced one.
    differences = write_part(PARTS[part](network, size, level), tmp_path / "x.onnx")
    assert max(differences.values()) <= TOLERANCE == 1e-4


@pytest.mark.slow
def test_onnxruntime_equals_torch_for_finetuned_flow(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the packages for ONNX are not installed")
    network = midway.load("synthetic-tiny")
    finetuned = FlowNetwork.from_pretrained(network, DPT, (64, 64)).eval()
    differences = write_part(FlowPart(finetuned, (48, 64)), tmp_path / "x.onnx")
    assert max(differences.values()) <= TOLERANCE


def test_a_file_describes_its_part(tmp_path: Path) -> None:
    onnx_ = pytest.importorskip("onnx", reason="the packages for ONNX are not installed")
    part = EncoderPart(network_of("tiny").encoder, (32, 48), (1, 2))
    write_part(part, tmp_path / "x.onnx")
    model = onnx_.load(tmp_path / "x.onnx")
    (described,) = (each.value for each in model.metadata_props if each.key == METADATA)
    assert json.loads(described) == {
        "part": "encoder",
        "inputs": ["images"],
        "size": [32, 48],
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "levels": [1, 2],
    }
    assert [each.name for each in model.graph.output] == ["level1", "level2", "class_token"]
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    differences = write_part(part, tmp_path / "x.pt2")
    assert max(differences.values()) <= TOLERANCE
    files = {METADATA: ""}
    torch.export.load(tmp_path / "x.pt2", extra_files=files)
    assert json.loads(files[METADATA]) == json.loads(described)


class Unusual(Part):
    """A part with an operator that ONNX does not have."""

    name = "encoder"
    inputs = dynamic = ("images",)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # pyright: ignore
        return {"found": torch.special.bessel_j0(images)}


class Linear(Part):
    """A part that ONNX has the operators for."""

    name = "encoder"
    inputs = dynamic = ("images",)

    def __init__(self) -> None:
        super().__init__((8, 8))
        self.linear = nn.Linear(8, 2)

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # pyright: ignore
        return {"found": self.linear(images)}


def test_an_operator_that_onnx_lacks_is_one_line_with_the_remedy(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript", reason="the packages for ONNX are not installed")
    with pytest.raises(MidwayError) as caught:
        write_part(Unusual((8, 8)), tmp_path / "x.onnx")
    assert "no operator for prims.bessel_j0" in str(caught.value)
    assert "give a name ending in .pt2" in str(caught.value)
    assert not list(tmp_path.iterdir())
    assert write_part(Unusual((8, 8)), tmp_path / "x.pt2") == {"found": 0}


def test_a_file_that_differs_from_torch_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    of_another = write.FORMATS[".pt2"][1]

    def changed(path, inputs):
        return {name: each + 1e-3 for name, each in of_another(path, inputs).items()}

    monkeypatch.setitem(write.FORMATS, ".pt2", (write.FORMATS[".pt2"][0], changed))
    with pytest.raises(MidwayError, match=r"its found differs from torch's by 1.0e-03; report"):
        write_part(Linear(), tmp_path / "x.pt2")
    assert not list(tmp_path.iterdir())


def test_without_the_packages_and_for_other_suffixes_the_remedy_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MidwayError, match=r"unknown format; give a name ending in .onnx or .pt2"):
        write_part(Linear(), tmp_path / "x.tflite")
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(
        MidwayError, match=r"needs onnxscript; pip install 'midway-network\[onnx\]'"
    ):
        write_part(Linear(), tmp_path / "x.onnx")


class Counting(Linear):
    """A part whose graph depends on the size of the batch."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:  # pyright: ignore
        return {"found": torch.cat([images[:1]] * len(images))}


def test_what_cannot_be_traced_run_or_stored_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("onnxscript", reason="the packages for ONNX are not installed")
    with pytest.raises(MidwayError, match=r"part encoder: torch.export cannot trace it \(.*"):
        write_part(Counting(), tmp_path / "x.pt2")
    (tmp_path / "bad.onnx").write_bytes(b"no graph")
    with pytest.raises(MidwayError, match=r"bad.onnx: onnxruntime cannot run it .*; give a name"):
        run_onnx(tmp_path / "bad.onnx", {})
    monkeypatch.setattr(onnx, "LARGEST", 10)
    with pytest.raises(MidwayError, match=r"one ONNX file holds less than 2 GB; give a name"):
        write_part(Linear(), tmp_path / "x.onnx")
