"""Methods of optical flow take networks by the same names as every other command."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from midway.errors import MidwayError
from midway.models.flow import predictor
from midway.models.flow.predictor import FlowMethod, flow_predictor
from midway.models.midway import MidwayNetwork
from midway.models.weights.save import save

from ..networks import tiny


@pytest.mark.parametrize("name", ["https://example.org/net.pth", "hf://owner/name", "timm:vit"])
@pytest.mark.parametrize("method", ["features", "dynamics"])
def test_a_name_reaches_the_loader_as_it_was_given(monkeypatch, name, method):
    def refuse(network, **_):
        raise MidwayError(f"asked for {network}")

    monkeypatch.setattr(predictor, "read_source", refuse)
    monkeypatch.setattr(predictor, "load", refuse)
    monkeypatch.setattr(predictor, "load_encoder", refuse)
    with pytest.raises(MidwayError, match=f"asked for {name}"):
        flow_predictor(FlowMethod(method=method, network=name))


def test_tiles_match_at_the_given_size_and_scale_the_flow_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = MidwayNetwork(tiny())
    network.encoder.pos_embed.data.zero_()
    rows, columns = network.encoder.image_size
    patch = network.encoder.stride
    save(network, tmp_path / "net.safetensors")
    # Noise that moves by a patch at half the size, in which the tiles are matched.
    noise = np.random.default_rng(0).integers(0, 256, (4 * rows // patch, 6 * columns // patch, 3))
    large = noise.repeat(patch, axis=0).repeat(patch, axis=1).astype(np.uint8)
    small = large[::2, ::2]
    how = FlowMethod(
        method="features",
        network=str(tmp_path / "net.safetensors"),
        level=1,
        radius=1,
        overlap=0.5,
        short_side=(len(small),),
    )
    in_tiles, whole = flow_predictor(how), flow_predictor(replace(how, short_side=()))
    found = in_tiles(large, np.roll(large, 2 * patch, axis=1))
    as_small, untiled = (find(small, np.roll(small, patch, axis=1)) for find in (in_tiles, whole))
    assert found.shape == (*large.shape[:2], 2)
    assert np.median(found[..., 0]) == pytest.approx(2 * np.median(as_small[..., 0]), rel=0.15)
    # Patches at the border of a tile have lost their match.
    assert np.median(as_small[..., 0]) == pytest.approx(np.median(untiled[..., 0]), rel=0.35)
    assert np.median(found[..., 1]) == pytest.approx(0, abs=0.2 * patch)


def test_of_several_short_sides_each_pixel_takes_the_flow_that_explains_it(monkeypatch) -> None:
    """A stand-in for matching is right at one of two resolutions, and only in the left half."""
    monkeypatch.setattr(predictor, "load_encoder", lambda *_, **__: nn.Linear(1, 1))

    def matched(_encoder, _find, _how, side, frames) -> torch.Tensor:
        flow = torch.zeros(1, 2, *frames.shape[2:])
        flow[:, 0] = {96: 9.0, 192: -6.0}[side]
        return flow

    monkeypatch.setattr(predictor, "_matched_in_tiles", matched)
    source = np.random.default_rng(0).integers(0, 256, (128, 256, 3), np.uint8)
    target = source.copy()
    target[:, :128] = np.roll(source[:, :128], -6, axis=1)
    how = FlowMethod(method="features", network="net", level=1, short_side=(96, 192))
    found = flow_predictor(how)(source, target)
    assert (found[16:-16, 32:96] == [-6, 0]).all()
    assert (found[16:-16, 160:-32] == 0).all()


def test_a_negative_or_repeated_short_side_is_refused() -> None:
    with pytest.raises(MidwayError, match="-1 pixels: give 1 or more"):
        FlowMethod(method="features", short_side=(64, -1))
    with pytest.raises(MidwayError, match="sides 64 96 64: one is given twice"):
        FlowMethod(method="features", short_side=(64, 96, 64))


@pytest.mark.parametrize("method", ["zero", "pixels", "finetuned"])
def test_a_short_side_and_an_average_are_refused_where_nothing_is_matched(method) -> None:
    with pytest.raises(MidwayError, match=r"side 64 96: method .* matches no tiles; leave"):
        flow_predictor(FlowMethod(method=method, short_side=(64, 96)))
    with pytest.raises(MidwayError, match="averages no matches; leave it out"):
        flow_predictor(FlowMethod(method=method, average="window"))


def test_settings_have_later_options_only_where_they_are_used() -> None:
    whole = FlowMethod(method="features", network="net", level=1)
    assert whole.settings() == {"level": 1, "radius": 5}
    tiled = replace(whole, short_side=(64,), overlap=0.5)
    assert tiled.settings() == {"level": 1, "radius": 5, "short_side": 64, "overlap": 0.5}
    assert replace(tiled, short_side=(96, 64)).settings()["short_side"] == [64, 96]
    averaged = replace(whole, average="window")
    assert averaged.settings() == {"level": 1, "radius": 5, "average": "window"}


def test_dynamics_match_frames_smaller_than_a_tile_in_one_tile(tmp_path: Path) -> None:
    save(MidwayNetwork(tiny()), tmp_path / "net.safetensors")
    how = FlowMethod(method="dynamics", network=str(tmp_path / "net.safetensors"), short_side=(8,))
    frame = np.random.default_rng(0).integers(0, 256, (20, 12, 3), np.uint8)
    flows = [flow_predictor(each)(frame, frame) for each in (how, replace(how, average="window"))]
    for flow in flows:
        assert flow.shape == (20, 12, 2)
        assert np.isfinite(flow).all()
    assert not np.array_equal(*flows)
