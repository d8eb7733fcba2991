import json
import pickle
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from midway.config import to_json
from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from midway.models.release import to_release_name, unflatten_release
from midway.models.weights import load, save
from tests.models.networks import ENCODER, tiny


def _network(**dynamics: object) -> MidwayNetwork:
    network = MidwayNetwork(tiny(**dynamics)).eval()
    for tensor in network.state_dict().values():
        tensor.normal_()
    return network


def _same(one: MidwayNetwork, two: MidwayNetwork) -> bool:
    mine, theirs = one.state_dict(), two.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "change", [{}, {"gates": False}, {"latent_dynamics": False}, {"backward_layers": False}]
)
def test_saved_and_loaded_it_is_the_same(tmp_path: Path, suffix: str, change: dict) -> None:
    network = _network(**change)
    save(network, tmp_path / f"net{suffix}")
    again = load(tmp_path / f"net{suffix}", encoder_heads=2)
    assert _same(network, again)
    default = tiny().dynamics  # sizes of parts that are not there cannot be read off a file
    sizes = ("midway_width", "midway_depth", "midway_heads", "num_latents")
    kept = {
        name: getattr(default, name)
        for name in sizes
        if not network.config.dynamics.latent_dynamics
    }
    dynamics = replace(again.config.dynamics, **kept)
    assert replace(again.config, dynamics=dynamics) == network.config


def test_a_rectangular_image_and_other_patches_are_read_off_the_release_file(
    tmp_path: Path,
) -> None:
    config = tiny()
    config = replace(config, encoder=replace(ENCODER, image_size=(32, 64), patch_size=16))
    save(MidwayNetwork(config), tmp_path / "net.pth")
    assert load(tmp_path / "net.pth", encoder_heads=2).config == config


def test_omegaconf_arguments_are_read_without_omegaconf(tmp_path: Path) -> None:
    network = _network()
    save(network, tmp_path / "plain.pth")
    contents = torch.load(tmp_path / "plain.pth", weights_only=True)
    contents["args"]["arch"] = "vit_tiny"
    contents["args"] = OmegaConf.create(contents["args"] | {"interpolated": "${arch}"})
    torch.save(contents, tmp_path / "release.pth")
    again = load(tmp_path / "release.pth", encoder_heads=2)
    assert again.config == network.config
    assert _same(network, again)


class _Touch:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("key", ["args", "student"])
def test_code_in_a_pickle_is_refused_and_never_run(tmp_path: Path, key: str) -> None:
    save(_network(), tmp_path / "net.pth")
    contents = torch.load(tmp_path / "net.pth", weights_only=True)
    contents[key] = {"payload": _Touch(tmp_path / "created")}
    torch.save(contents, tmp_path / "evil.pth")
    with pytest.raises(MidwayError, match=r"evil\.pth: not read, its pickle asks for"):
        load(tmp_path / "evil.pth")
    assert not (tmp_path / "created").exists()


def test_a_bare_pickle_is_refused_and_never_run(tmp_path: Path) -> None:
    (tmp_path / "evil.pth").write_bytes(pickle.dumps(_Touch(tmp_path / "created"), protocol=2))
    with pytest.raises(MidwayError, match=r"evil\.pth"):
        load(tmp_path / "evil.pth")
    assert not (tmp_path / "created").exists()


def _release(network: MidwayNetwork) -> dict[str, Tensor]:
    levels = network.config.dynamics.levels
    return {to_release_name(n, levels): t for n, t in network.state_dict().items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda t: t.pop("motion_loss.module.motion_proj.bias"), "1 missing .*midway_path.up.bias"),
        (lambda t: t.update({"student.module.extra": torch.zeros(1)}), "1 unknown .*extra"),
        (
            lambda t: t.update({"dino_loss.center": torch.zeros(1, 5)}),
            "1 of another shape .*center",
        ),
        (
            lambda t: t.pop("student.module.backbone.pos_embed"),
            "no tensor 'student.module.backbone",
        ),
    ],
)
def test_nothing_is_loaded_in_part(tmp_path: Path, spoil, message: str) -> None:
    tensors = _release(_network())
    spoil(tensors)
    torch.save(unflatten_release(tensors), tmp_path / "net.pth")
    with pytest.raises(MidwayError, match=message):
        load(tmp_path / "net.pth", encoder_heads=2)


def test_heads_that_no_shape_tells_are_asked_for(tmp_path: Path) -> None:
    torch.save(unflatten_release(_release(_network())), tmp_path / "net.pth")
    with pytest.raises(MidwayError, match="give encoder_heads"):
        load(tmp_path / "net.pth")


def test_a_run_folder_gives_its_newest_checkpoint(tmp_path: Path) -> None:
    old, new = _network(), _network()
    (tmp_path / "checkpoints").mkdir()
    method = {"name": "midway", "network": to_json(new.config)}
    (tmp_path / "config.json").write_text(json.dumps({"method": method}))
    for step, network in ((9, old), (10, new)):
        model = {f"network.{name}": tensor for name, tensor in network.state_dict().items()}
        torch.save({"model": model, "step": step}, tmp_path / f"checkpoints/step_{step:08d}.ckpt")
    assert _same(load(tmp_path), new)
    assert _same(load(tmp_path / "checkpoints" / "step_00000009.ckpt"), old)


def test_a_network_from_the_hub_is_one_safetensors_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = _network()
    save(network, tmp_path / "model.safetensors")
    asked = []

    def download(repo_id: str, filename: str) -> str:
        asked.append((repo_id, filename))
        return str(tmp_path / filename)

    monkeypatch.setattr("midway.models.weights.hf_hub_download", download)
    assert _same(load("someone/midway-vits"), network)
    assert asked == [("someone/midway-vits", "model.safetensors")]


def test_what_the_release_layout_cannot_tell_is_not_exported_to_it(tmp_path: Path) -> None:
    with pytest.raises(MidwayError, match="export to"):
        save(_network(gate_input="own"), tmp_path / "net.pth")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("net.pth", b"no checkpoint", r"net\.pth"),
        ("net.pth", b"", r"net\.pth"),
        ("net.safetensors", b"no tensors here", "no readable safetensors"),
        ("net.ckpt", b"PK\x03\x04 cut", r"net\.ckpt"),
    ],
)
def test_files_that_are_no_checkpoints_are_named(
    tmp_path: Path, name: str, content: bytes, message: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(MidwayError, match=message) as caught:
        load(tmp_path / name)
    assert "\n" not in str(caught.value)


def test_a_truncated_checkpoint_is_named(tmp_path: Path) -> None:
    save(_network(), tmp_path / "net.pth")
    whole = (tmp_path / "net.pth").read_bytes()
    (tmp_path / "net.pth").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MidwayError, match=r"net\.pth"):
        load(tmp_path / "net.pth")
    assert not zipfile.is_zipfile(tmp_path / "net.pth")


def test_a_missing_file_and_an_empty_folder_are_named(tmp_path: Path) -> None:
    with pytest.raises(MidwayError, match="no such file or folder"):
        load(tmp_path / "net.pth")
    with pytest.raises(MidwayError, match="no checkpoints"):
        load(tmp_path)
