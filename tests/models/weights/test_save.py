from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.models.weights.save import save
from tests.models.networks import ENCODER, random_network, same_weights, tiny


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize(
    "change", [{}, {"gates": False}, {"latent_dynamics": False}, {"backward_layers": False}]
)
def test_saved_and_loaded_it_is_thesame_weights(tmp_path: Path, suffix: str, change: dict) -> None:
    network = random_network(**change)
    save(network, tmp_path / f"net{suffix}")
    again = load(tmp_path / f"net{suffix}", encoder_heads=2)
    assert same_weights(network, again)
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
    network = random_network()
    save(network, tmp_path / "plain.pth")
    contents = torch.load(tmp_path / "plain.pth", weights_only=True)
    contents["args"]["arch"] = "vit_tiny"
    contents["args"] = OmegaConf.create(contents["args"] | {"interpolated": "${arch}"})
    torch.save(contents, tmp_path / "release.pth")
    again = load(tmp_path / "release.pth", encoder_heads=2)
    assert again.config == network.config
    assert same_weights(network, again)


def test_half_precision_halves_the_file_and_rounds_the_weights(tmp_path: Path) -> None:
    network = random_network()
    for name, half in (("whole", False), ("half", True)):
        save(network, tmp_path / f"{name}.safetensors", half=half)
    whole, halved = (
        (tmp_path / f"{name}.safetensors").stat().st_size for name in ("whole", "half")
    )
    assert halved < 0.6 * whole
    loaded = load(tmp_path / "half.safetensors").state_dict()
    for name, tensor in network.state_dict().items():
        assert loaded[name].dtype == torch.float32
        torch.testing.assert_close(loaded[name], tensor, rtol=1e-3, atol=1e-6)


def test_another_suffix_is_refused_before_anything_is_made(tmp_path: Path) -> None:
    with pytest.raises(MidwayError, match="unknown format"):
        save(random_network(), tmp_path / "new" / "net.bin")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_crash_while_saving_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    def crash(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / f"net{suffix}"
    path.write_text("precious")
    monkeypatch.setattr("os.fsync", crash)
    with pytest.raises(KeyboardInterrupt):
        save(random_network(), path)
    assert path.read_text() == "precious"


def test_what_the_release_layout_cannot_tell_is_not_exported_to_it(tmp_path: Path) -> None:
    with pytest.raises(MidwayError, match="export to"):
        save(random_network(gate_input="own"), tmp_path / "net.pth")
    config = tiny()
    scaled = replace(config, encoder=replace(config.encoder, layer_scale=True))
    with pytest.raises(MidwayError, match="an encoder's layer_scale; export to"):
        save(MidwayNetwork(scaled), tmp_path / "net.pth")
