"""Encoders in other people's files: found below parts and prefixes, or refused in one line."""

import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from midway.errors import MidwayError
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.weights.load import load
from midway.models.weights.release import ReleaseHints
from midway.models.weights.sources import load_encoder
from tests.models.networks import ENCODER

HINTS = ReleaseHints(encoder_heads=2)


def vit(seed: int = 0) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    return dict(VisionTransformer(ENCODER).state_dict())


def below(prefix: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in state.items()}


def is_read(path: Path, state: dict[str, Tensor], weights: str = "teacher") -> bool:
    found = load_encoder(str(path), weights=weights, hints=HINTS).state_dict()
    return found.keys() == state.keys() and all(torch.equal(found[n], state[n]) for n in state)


@pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "backbone.", "module.backbone."])
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_prefix_is_found_and_told(tmp_path, caplog, prefix, suffix):
    path, state = tmp_path / f"net{suffix}", vit()
    content = below(prefix, state)
    if prefix != "_orig_mod.":
        content["neck.weight"] = torch.zeros(3)
    save_file(content, path) if suffix == ".safetensors" else torch.save(content, path)
    assert is_read(path, state)
    if prefix != "_orig_mod.":
        assert f"the encoder is read from {prefix.rstrip('.')}" in caplog.text


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"model": state, "optimizer": {"state": {0: torch.zeros(2)}}, "epoch": 3},
        lambda state: {"state_dict": {"model": below("module.encoder.", state)}},
        lambda state: {"model": state | {"decoder_embed.weight": torch.zeros(2), "mask_token": 1}},
        lambda state: {"teacher": below("backbone.", state), "student": below("backbone.", vit(9))},
        lambda state: {"student": below("backbone.", vit(9)), "ema": below("module.", state)},
        lambda state: {
            name.replace("blocks.", "blocks._orig_mod."): tensor for name, tensor in state.items()
        },
    ],
)
def test_a_part_of_a_checkpoint_is_found(tmp_path, wrap):
    path, state = tmp_path / "net.pth", vit()
    torch.save(wrap(state), path)
    assert is_read(path, state)


def test_a_checkpoint_of_dino_gives_its_teacher_or_its_student(tmp_path, caplog):
    teacher, student = vit(0), vit(1)
    content = {
        "student": below("module.backbone.", student) | {"module.head.mlp.0.weight": torch.ones(2)},
        "teacher": below("backbone.", teacher),
        "optimizer": {},
        "epoch": 1,
        "dino_loss": {"center": torch.zeros(1, 8)},
    }
    path = tmp_path / "dino.pth"
    torch.save(content, path)
    assert is_read(path, teacher)
    assert "read from teacher.backbone, not student.module.backbone" in caplog.text
    assert is_read(path, student, weights="student")
    with pytest.raises(MidwayError, match=r"no encoder 'best'; there are .*: choose by --weights"):
        load_encoder(str(path), weights="best", hints=HINTS)
    with pytest.raises(MidwayError, match="no Midway configuration in it") as caught:
        load(path)
    assert len(str(caught.value)) < 500


def test_blocks_in_chunks_are_numbered_through(tmp_path):
    state = vit()
    chunked = {}
    for name, tensor in state.items():
        number = name.split(".")[1] if name.startswith("blocks.") else ""
        new = (
            name.replace(f"blocks.{number}.", f"blocks.{int(number) // 2}.{number}.")
            if number
            else name
        )
        chunked[new] = tensor
    save_file(chunked, tmp_path / "net.safetensors")
    assert is_read(tmp_path / "net.safetensors", state)


def test_a_resnet_below_a_prefix_is_found(tmp_path):
    config = ResNetConfig(blocks=(1, 1, 1, 1), width=4)
    state = dict(ResNet(config).state_dict())
    torch.save({"state_dict": below("module.", state)}, tmp_path / "net.pth.tar")
    assert is_read(tmp_path / "net.pth.tar", state)


@pytest.mark.parametrize(("width", "heads"), [(192, 3), (48, None), (1280, None)])
def test_heads_are_guessed_where_published_widths_have_one_number(tmp_path, caplog, width, heads):
    config = EncoderConfig(image_size=(16, 16), patch_size=8, width=width, depth=1, heads=1)
    path = str(tmp_path / "net.safetensors")
    save_file(dict(VisionTransformer(config).state_dict()), path)
    if heads is None:
        with pytest.raises(MidwayError, match=rf"width {width} .*give --encoder-heads") as caught:
            load_encoder(path)
        assert path in str(caught.value)
    else:
        with caplog.at_level(logging.WARNING):
            assert load_encoder(path).config.heads == heads
        assert f"{heads} attention heads follow from its width; --encoder-heads" in caplog.text
    assert load_encoder(path, hints=ReleaseHints(encoder_heads=4)).config.heads == 4


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"embeddings.projection.weight": torch.zeros(2)}, "but embeddings.projection.weight;"),
        ({"epoch": 3, "args": {}}, "contains no tensors; its keys are args, epoch"),
        ({f"layer.{'x' * 500}.{n}": torch.zeros(1) for n in range(99)}, r"\.\.\.; give a file"),
    ],
)
def test_a_file_without_a_known_encoder_is_refused_in_a_short_line(tmp_path, content, message):
    path = tmp_path / "net.pth"
    torch.save(content, path)
    with pytest.raises(MidwayError, match=message) as caught:
        load_encoder(str(path))
    assert len(str(caught.value)) < 650 + len(str(path))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (torch.nan, r"its tensor norm\.weight has values that are not finite"),
        (torch.inf, r"its tensor norm\.weight has values that are not finite"),
    ],
)
def test_weights_that_are_not_finite_are_refused_by_name(tmp_path, value, message):
    state = vit()
    state["norm.weight"][3] = value
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(MidwayError, match=message):
        load_encoder(str(tmp_path / "net.safetensors"), hints=HINTS)


def test_weights_of_integers_are_refused(tmp_path):
    state = {name: (tensor * 100).to(torch.int8) for name, tensor in vit().items()}
    save_file(state, tmp_path / "net.safetensors")
    with pytest.raises(MidwayError, match=r"54 of another type \(blocks"):
        load_encoder(str(tmp_path / "net.safetensors"), hints=HINTS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"version https://git-lfs.github.com/spec/v1\n", "is a Git LFS pointer"),
        (b"<!DOCTYPE html>", "is a web page"),
        (b"", "is empty"),
    ],
)
def test_a_safetensors_file_of_another_kind_is_named(tmp_path, content, message):
    (tmp_path / "net.safetensors").write_bytes(content)
    with pytest.raises(MidwayError, match=rf"net\.safetensors: {message}"):
        load_encoder(str(tmp_path / "net.safetensors"))


@pytest.mark.parametrize(
    "name", ["model.safetensors.index.json", "pytorch_model.bin.index.json", ".metadata"]
)
def test_a_checkpoint_in_several_files_is_named(tmp_path, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(MidwayError, match="is a checkpoint in several files; save it as one"):
        load_encoder(str(tmp_path))
