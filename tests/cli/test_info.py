"""Every file of weights that midway writes, and those of others, are described."""

import json
from pathlib import Path

import pytest
import torch

from midway.cli import main
from midway.models.encoders.vit import VisionTransformer
from midway.models.flow.network import BEST, FlowNetwork, save_flow_network
from midway.models.midway import MidwayNetwork
from midway.models.weights.save import save
from tests.models.networks import ENCODER, tiny
from tests.models.weights.test_check import FLOW


def described(path: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict:
    assert main(["info", str(path), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("half", [False, True])
def test_an_exported_network(tmp_path, capsys, suffix, half):
    save(MidwayNetwork(tiny()), tmp_path / f"net{suffix}", half=half)
    found = described(tmp_path / f"net{suffix}", capsys, "--encoder-heads", "2")
    assert found["kind"] == "midway network"
    assert found["config"]["encoder"]["width"] == 24


def test_a_flow_network_by_its_file_and_by_its_folder(tmp_path, capsys):
    save_flow_network(FlowNetwork(FLOW), tmp_path / BEST)
    by_file, by_folder = described(tmp_path / BEST, capsys), described(tmp_path, capsys)
    assert by_file["kind"] == by_folder["kind"] == "flow network"
    assert by_file["encoders"]["encoder"]["kind"] == "vit"
    assert by_file["parameters"].keys() == {"encoder", "dynamics", "head"}


def test_an_encoder_of_others(tmp_path, capsys):
    state = VisionTransformer(ENCODER).state_dict()
    content = {"model": {f"module.{name}": tensor for name, tensor in state.items()}}
    torch.save(content, tmp_path / "net.pth")
    found = described(tmp_path / "net.pth", capsys, "--encoder-heads", "2")
    assert found["kind"] == "encoder"
    assert found["encoders"]["encoder"]["config"]["depth"] == ENCODER.depth


def test_a_file_of_dino_is_described_by_layout_authors_licence_and_left_out_parts(tmp_path, capsys):
    state = VisionTransformer(ENCODER).state_dict()
    content = {
        "student": {f"module.backbone.{name}": tensor for name, tensor in state.items()},
        "teacher": {f"backbone.{name}": tensor for name, tensor in state.items()}
        | {"head.last_layer.weight_g": torch.ones(2, 1)},
        "dino_loss": {"center": torch.zeros(1, 2)},
    }
    torch.save(content, tmp_path / "net.pth")
    assert main(["info", str(tmp_path / "net.pth"), "--encoder-heads", "2"]) == 0
    printed = capsys.readouterr().out
    for line in (
        "layout: DINO, full checkpoint, teacher.backbone",
        "made by: Caron et al., 2021 (Meta AI), or DoRA",
        "licence: Apache-2.0 (DINO)",
        "other encoders: student.module.backbone (choose by --weights",
        f"left out: {len(state)} of other encoders (student.module.backbone.blocks.0.attn.proj.",
        "1 of head (teacher.head.last_layer.weight_g), 1 of centre (dino_loss.center)",
    ):
        assert line in printed
    found = described(tmp_path / "net.pth", capsys, "--encoder-heads", "2")
    assert found["left_out"] == {"other encoders": len(state), "head": 1, "centre": 1}


def test_an_error_with_numbers_that_are_none_is_json(tmp_path, capsys):
    network = MidwayNetwork(tiny())
    save(network, tmp_path / "net.pth")
    content = torch.load(tmp_path / "net.pth", weights_only=True)
    content["args"]["drop_path_rate"] = float("nan")
    torch.save(content, tmp_path / "net.pth")
    assert main(["info", str(tmp_path / "net.pth"), "--encoder-heads", "2", "--json"]) == 2
    assert "drop_path nan" in json.loads(capsys.readouterr().out)["error"]
