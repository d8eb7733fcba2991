"""Files in the release layout: what is read off them, what is asked for, what is refused."""

import collections
import typing
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.models.weights.release import UnknownHeadsError, to_release_name, unflatten_release
from midway.models.weights.save import save
from tests.models.networks import ENCODER, HEADS, random_network, same_weights, tiny


def _release(network: MidwayNetwork) -> dict[str, Tensor]:
    levels = network.config.dynamics.levels
    return {to_release_name(n, levels): t for n, t in network.state_dict().items()}


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (
            lambda t: t.pop("motion_loss.module.motion_proj.bias"),
            "1 missing .*motion_loss.module.motion_proj.bias",
        ),
        (lambda t: t.update({"student.module.extra": torch.zeros(1)}), "1 unknown .*extra"),
        (
            lambda t: t.update({"dino_loss.center": torch.zeros(1, 5)}),
            "1 of another shape .*center",
        ),
        (
            lambda t: t.pop("student.module.backbone.pos_embed"),
            "no tensor 'student.module.backbone",
        ),
        (
            lambda t: t.update({"teacher.encoder.cls_token": torch.zeros(1, 1, 24)}),
            "1 unknown .*teacher.encoder.cls_token",  # our own name, and none of the layout
        ),
        (
            lambda t: t.update({"dino_loss.center": torch.zeros(1, 32).long()}),
            "dino_loss has entries that are not floating-point tensors: center",
        ),
        (
            lambda t: t.update({"dino_loss.center": torch.zeros(1, 32) * 1j}),
            "dino_loss has entries that are not floating-point tensors: center",
        ),
    ],
)
def test_nothing_is_loaded_in_part(tmp_path: Path, spoil, message: str) -> None:
    tensors = _release(random_network())
    spoil(tensors)
    torch.save(unflatten_release(tensors), tmp_path / "net.pth")
    with pytest.raises(MidwayError, match=message):
        load(tmp_path / "net.pth", **HEADS)


@pytest.mark.parametrize("untold", list(HEADS))
def test_heads_that_no_shape_tells_are_asked_for(tmp_path: Path, untold: str) -> None:
    torch.save(unflatten_release(_release(random_network())), tmp_path / "net.pth")
    told = {name: heads for name, heads in HEADS.items() if name != untold}
    with pytest.raises(UnknownHeadsError, match=rf"net\.pth: .*; give {untold} \(--"):
        load(tmp_path / "net.pth", **told)


def test_untold_heads_are_the_published_ones_only_at_published_widths(tmp_path: Path) -> None:
    sizes = {"levels": (2,), "midway_width": 192, "midway_depth": 1, "forward_depth": 2}
    config = tiny(**sizes, midway_heads=3, backward_heads=6, forward_heads=6)
    config = replace(config, encoder=replace(ENCODER, width=384, heads=6))
    torch.save(unflatten_release(_release(MidwayNetwork(config))), tmp_path / "net.pth")
    assert load(tmp_path / "net.pth", encoder_heads=6).config == config


@pytest.mark.parametrize(
    ("args", "drop_path"),
    [
        ({}, 0.0),
        ({"arch": "vit_custom"}, 0.0),
        ({"arch": "vit_small"}, 0.1),
        ({"arch": "vit_small", "drop_path_rate": 0.3}, 0.3),
        ({"arch": "vit_base", "drop_path_rate": None}, 0.1),
    ],
)
def test_untold_drop_path_is_the_published_one_only_for_published_encoders(
    tmp_path: Path, args: dict, drop_path: float
) -> None:
    parts = unflatten_release(_release(random_network()))
    torch.save(parts | {"args": args}, tmp_path / "net.pth")
    assert load(tmp_path / "net.pth", **HEADS).config.encoder.drop_path == drop_path


@pytest.mark.parametrize("arguments", ["plain", "omegaconf", "missing"])
@pytest.mark.parametrize("gates", [True, False])
def test_another_shape_of_network_gives_equal_outputs(
    tmp_path: Path, arguments: str, gates: bool
) -> None:
    levels = (1, 2, 3) if arguments == "missing" else (1, 3)
    config = tiny(gates=gates, levels=levels)
    config = replace(config, encoder=replace(ENCODER, image_size=(32, 64), num_registers=3))
    network = MidwayNetwork(config).eval()
    path, told = tmp_path / "net.pth", {"encoder_heads": 2}
    save(network, path)
    contents = torch.load(path, weights_only=True)
    if arguments == "omegaconf":
        contents["args"] = OmegaConf.create(contents["args"])
    if arguments == "missing":
        del contents["args"]
        told = HEADS | {"image_size": (32, 64)}
    torch.save(contents, path)
    again = load(path, **told)
    assert again.config == config
    assert same_weights(network, again)
    frames = torch.randn(2, 1, 3, 32, 64)
    with torch.no_grad():
        one, two = network(*frames).levels, again(*frames).levels
    assert all(torch.equal(one[n].prediction, two[n].prediction) for n in levels)


def _saved_release(path: Path, spoil: typing.Callable[[dict], object]) -> Path:
    save(random_network(), path)
    contents = torch.load(path, weights_only=True)
    spoil(contents)
    torch.save(contents, path)
    return path


def _endless() -> list:
    endless: list = []
    endless.append(endless)
    return endless


class _Called:
    def __init__(self, function: object, *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple:
        return self.call


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda c: c.update(student=torch.zeros(2)), "student is a Tensor, not a dict"),
        (lambda c: c.update(student=None), "student is a NoneType, not a dict"),
        (
            lambda c: c["student"].update(extra=3),
            "student has entries that are not .* tensors: extra",
        ),
        (lambda c: c["student"].update({7: torch.zeros(1)}), "not floating-point tensors: 7"),
        (lambda c: c.update(extra={}), "the release layout has no part extra"),
        (lambda c: c.update({5: {}}), "the release layout has no part 5"),
        (lambda c: c.pop("motion_loss"), "0 levels of forward models"),
        (lambda c: c.update(args=[1]), "args is a list, not a dict"),
        (lambda c: c["args"].update(global_crop_resolution=[32]), "image_size"),
        (lambda c: c["args"].update(global_crop_resolution="big"), "image_size"),
        (lambda c: c["args"].update(global_crop_resolution=64), "another shape .*pos_embed"),
        (lambda c: c["args"].update(midway_model_configs=[3]), "midway_model_configs is a list"),
        (lambda c: c["args"]["midway_model_configs"].update(num_pred_heads="x"), "forward_heads"),
        (lambda c: c["args"]["midway_model_configs"].update(num_pred_heads=0), "forward_heads 0"),
        (lambda c: c["args"].update(motion_feature_levels=["a"]), "motion_feature_levels"),
        (lambda c: c["args"].update(drop_path_rate=1.5), "drop_path 1.5"),
        (
            lambda c: c["student"].update({"module.backbone.pos_embed": torch.zeros(24)}),
            "'student.module.backbone.pos_embed' has 1 dimensions instead of 3",
        ),
        (
            lambda c: c["motion_loss"].update({"module.motion_tokens": torch.zeros(())}),
            "'motion_loss.module.motion_tokens' has 0 dimensions instead of 3",
        ),
        (lambda c: c.update(args=_endless()), "not a torch checkpoint"),
        (lambda c: c.update(args=_Called(typing.Any)), "not a torch checkpoint"),
        (lambda c: c.update(args=_Called(collections.defaultdict, 5)), "not a torch checkpoint"),
    ],
)
def test_odd_release_files_are_told_in_one_line(tmp_path: Path, spoil, message: str) -> None:
    path = _saved_release(tmp_path / "net.pth", spoil)
    with pytest.raises(MidwayError, match=message) as caught:
        load(path, encoder_heads=2)
    assert "net.pth" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_resolution_of_one_number_is_a_square(tmp_path: Path) -> None:
    path = _saved_release(
        tmp_path / "net.pth", lambda c: c["args"].update(global_crop_resolution=32)
    )
    assert load(path, encoder_heads=2).config == tiny()


@pytest.mark.parametrize("heads", [0, -2])
def test_heads_below_one_are_refused(tmp_path: Path, heads: int) -> None:
    save(random_network(), tmp_path / "net.pth")
    with pytest.raises(MidwayError, match=rf"net\.pth: encoder: heads {heads} is too small"):
        load(tmp_path / "net.pth", encoder_heads=heads)
