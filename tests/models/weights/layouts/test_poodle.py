"""Files in the layout of PooDLe's checkpoints: which encoder is read, and what is reported."""

import logging
from pathlib import Path

import pytest
import torch

from midway.errors import MidwayError
from midway.models.encoders.poodle import SpatialDecoder, SpatialDecoderConfig
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.weights.sources import load_encoder

SIZES = SpatialDecoderConfig(resnet=ResNetConfig(blocks=(1, 1, 1, 1), width=4), factor=0.5)


def published(part: SpatialDecoder, owner: str) -> dict[str, torch.Tensor]:
    """Return the tensors of one network, named as in the published files."""
    return {
        name.replace("backbone.", f"{owner}backbone.")
        if name.startswith("backbone.")
        else f"{owner}decoder_{name}": tensor
        for name, tensor in part.state_dict().items()
    }


@pytest.fixture
def file(tmp_path: Path) -> tuple[Path, dict[str, SpatialDecoder]]:
    torch.manual_seed(0)
    networks = {name: SpatialDecoder(SIZES) for name in ("student", "teacher")}
    heads = {
        f"{owner}{kind}_{part}.{number}.weight": torch.randn(3, 3, 1, 1)
        for owner in ("", "teacher_")
        for kind in ("dense", "pooled")
        for part in ("projector", "predictor")
        for number in (0, 3)
        if not (owner and part == "predictor")
    }
    flow = {"flow_model.fnet.layer1.0.conv1.weight": torch.randn(4, 4, 3, 3)}
    model = published(networks["student"], "") | published(networks["teacher"], "teacher_")
    contents = {"model": model | heads | flow, "optimizer": {}, "epoch": 99}
    torch.save(contents, tmp_path / "poodle.pth")
    return tmp_path / "poodle.pth", networks


def test_names_are_those_of_the_published_files(file):
    names = torch.load(file[0])["model"].keys()
    assert {
        "backbone.layer1.0.conv1.weight",
        "teacher_backbone.bn1.running_mean",
        "decoder_blocks.1.bn3.num_batches_tracked",
        "decoder_laterals.0.bias",
        "teacher_decoder_blocks.0.conv1.weight",
        "pooled_predictor.3.weight",
        "flow_model.fnet.layer1.0.conv1.weight",
    } <= {*names}


@pytest.mark.parametrize("owner", ["teacher", "student"])
def test_backbone_and_decoder_are_read_strictly_and_the_rest_is_reported(file, owner, caplog):
    path, networks = file
    with caplog.at_level(logging.WARNING):
        backbone = load_encoder(str(path), weights=owner)
    assert isinstance(backbone, ResNet)
    decoder = load_encoder(str(path), weights=f"{owner}_decoder")
    assert isinstance(decoder, SpatialDecoder)
    wanted = networks[owner].eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs, level in ((backbone, wanted.backbone, -1), (decoder, wanted, 5)):
            assert torch.equal(ours.maps(images, (level,))[0], theirs.maps(images, (level,))[0])
    read, other = ("teacher_backbone", "backbone")[:: 1 if owner == "teacher" else -1]
    assert f"the encoder is read from model.{read}; left out: " in caplog.text
    assert f"of {other} (model.{other}.bn1.bias, " in caplog.text
    assert "2 of dense_projector (" in caplog.text
    assert "1 of flow_model (model.flow_model.fnet." in caplog.text


def test_missing_tensors_and_unknown_encoders_are_named(file):
    path, _ = file
    contents = torch.load(path)
    del contents["model"]["teacher_decoder_blocks.0.bn1.bias"]
    torch.save(contents, path)
    load_encoder(str(path))
    with pytest.raises(MidwayError, match=r"1 missing \(blocks\.0\.bn1\.bias\)"):
        load_encoder(str(path), weights="teacher_decoder")
    with pytest.raises(MidwayError, match=r"no encoder 'ema'; there are teacher, student"):
        load_encoder(str(path), weights="ema")
