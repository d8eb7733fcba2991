"""Exchanged latents: what they are compared with, and what the comparison says."""

import json

import pytest
import torch

from midway.cli import main
from midway.data.synthetic.pairs import WorldPairs
from midway.data.synthetic.world import World, WorldConfig
from midway.data.synthetic.write import write_videos
from midway.errors import MidwayError
from midway.evals.latents import LATENTS, exchanged_losses, summary
from midway.evals.probes.exchange import HalvesConfig, half_losses, read_halves
from midway.models.weights.save import save

from ..models.networks import random_network

WORLDS = WorldPairs(
    world=WorldConfig(height=32, width=32, object_speed=20, camera_speed=20),
    num_worlds=2,
    pairs_per_world=2,
)


def _pair(number, *, look_seed=None):
    """The pair of this number as the network takes it."""
    world = World(WORLDS.world, WORLDS.seeds[number // 2], look_seed=look_seed)
    seconds = WORLDS.source_seconds()[number % 2]
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    images = [torch.from_numpy(world.frame(t).image) for t in (seconds, seconds + 0.5)]
    return [(((i / 255) - mean) / std).permute(2, 0, 1)[None].float() for i in images]


def _dense(predicted, target):
    unit = [x / x.norm(dim=-1, keepdim=True) for x in (predicted, target)]
    return (unit[0] - unit[1]).square().sum(-1).mean().item()


@torch.no_grad()
def test_losses_are_those_of_single_pairs_with_their_latents_exchanged():
    torch.manual_seed(0)
    network = random_network()
    found = exchanged_losses(network, WORLDS)
    for level in (1, 2, 3):
        model, up = network.dynamics.forward_models[str(level)], network.dynamics.raise_latents
        for number in range(4):
            source, target = _pair(number)
            own = network(source, target).levels[level]
            alike = network(*_pair(number, look_seed=1)).levels[level]
            backward = network(*reversed(_pair(number, look_seed=1))).levels[level]
            other = network(*_pair((number + 2) % 4)).levels[level]
            given = {
                "own": own.motion_latents,
                "alike": alike.motion_latents,
                "reversed": backward.motion_latents,
                "other_motion": other.motion_latents,
                "none": torch.zeros_like(own.motion_latents),
            }
            for name, latents in given.items():
                predicted = model(own.source_backward, up(latents))[0]
                expected = _dense(predicted, own.target)
                assert found[level][name][number].item() == pytest.approx(expected, rel=1e-4)
            (copied,) = network.teacher.encoder.levels(source, (level,))
            assert found[level]["copy"][number].item() == pytest.approx(
                _dense(copied, own.target), rel=1e-4
            )


def test_latents_that_nothing_is_made_of_are_worth_nothing():
    torch.manual_seed(0)
    network = random_network()
    with torch.no_grad():
        network.dynamics.midway_path.up.weight.zero_()
    for losses in exchanged_losses(network, WORLDS).values():
        found = summary(losses)
        assert found["own"] == found["alike"] == found["other_motion"] == found["none"]
        assert found["transfer"] is None
        assert found["motion_gain"] == 0


def test_transfer_is_the_share_of_their_worth_that_latents_keep():
    losses = {
        "own": torch.tensor([0.2, 0.4]),
        "alike": torch.tensor([0.6, 0.4]),
        "reversed": torch.tensor([1.0, 1.0]),
        "other_motion": torch.tensor([1.0, 0.6]),
    }
    found = summary(losses)
    assert found["transfer"] == pytest.approx((0.8 - 0.5) / (0.8 - 0.3))
    assert found["alike_wins"] == 1
    assert found["own"] == pytest.approx(0.3)
    assert found["motion_gain"] == pytest.approx(1 - 0.5 / 0.8)


def test_a_look_that_both_halves_share_is_no_motion():
    """Latents of the other half help, but as much with the motion reversed."""
    losses = {name: torch.full((3,), 0.5) for name in ("own", "alike", "reversed")}
    found = summary(losses | {"other_motion": torch.full((3,), 1.0)})
    assert found["transfer"] == 1
    assert found["motion_gain"] == 0


def test_a_network_without_any_loss_has_no_motion_gain():
    losses = dict.fromkeys((*LATENTS, "copy"), torch.zeros(3))
    assert summary(losses)["motion_gain"] is None


def test_one_world_or_no_latents_are_refused():
    alone = WorldPairs(world=WORLDS.world, num_worlds=1)
    with pytest.raises(MidwayError, match="need two worlds; give --num-worlds 2 or more"):
        exchanged_losses(random_network(), alone)
    with pytest.raises(MidwayError, match="no motion latents"):
        exchanged_losses(random_network(latent_dynamics=False), WORLDS)


def test_the_command_writes_and_tells_its_results(tmp_path, capsys):
    save(random_network(), tmp_path / "net.safetensors")
    words = ["--network", str(tmp_path / "net.safetensors"), "--num-worlds", "2"]
    words += ["--pairs-per-world", "1", "--accelerator", "cpu", "--folder", str(tmp_path / "out")]
    assert main(["eval", "latents", *words, "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    assert results == json.loads((tmp_path / "out/results.json").read_text())
    assert [*results["levels"]] == ["1", "2", "3"]
    assert results["pairs"] == 2
    table = [line.split() for line in printed if line.startswith("  ")]
    assert ["level", "1", "2", "3"] in table
    gains = [f"{results['levels'][level]['motion_gain']:.4f}" for level in ("1", "2", "3")]
    assert ["motion_gain", *gains] in table


@torch.no_grad()
def test_halves_of_video_frames_exchange_their_latents(tmp_path, capsys):
    torch.manual_seed(0)
    network, config = random_network(), HalvesConfig(root=str(tmp_path / "videos"), num_pairs=10)
    height, width = network.config.encoder.image_size
    world = WorldConfig(height=height, width=3 * width, num_frames=12, fps=8.0)
    write_videos(tmp_path / "videos", world, seeds=range(3))
    found = half_losses(network, config)[2]
    (first, second) = read_halves(network, config)
    assert [len(source) for source, _ in (first, second)] == [16, 4]
    source, target = (torch.cat(frames) for frames in zip(first, second, strict=True))
    assert source.shape == (20, 3, height, width)
    # The second half begins where the first one ends: their edges are alike.
    left, right = source[:8], source[8:16]
    edge = (left[..., -1] - right[..., 0]).abs().mean()
    assert edge < 0.7 * (left[..., -1] - right.roll(1, 0)[..., 0]).abs().mean()
    assert edge < 0.7 * (left[..., -1] - right[..., -1]).abs().mean()
    model, up = network.dynamics.forward_models["2"], network.dynamics.raise_latents
    own, back = network(source, target).levels[2], network(target, source).levels[2]
    for row, (alike, other) in {0: (8, 1), 15: (7, 18), 17: (19, 0), 18: (16, 19)}.items():
        for name, given in (("own", row), ("alike", alike), ("other_motion", other)):
            latents = up(own.motion_latents[given][None])
            predicted = model(own.source_backward[row][None], latents)[0]
            expected = _dense(predicted, own.target[row][None])
            assert found[name][row].item() == pytest.approx(expected, rel=1e-3), (name, row)
        predicted = model(own.source_backward[row][None], up(back.motion_latents[alike][None]))[0]
        expected = _dense(predicted, own.target[row][None])
        assert found["reversed"][row].item() == pytest.approx(expected, rel=1e-3), row
    save(network, tmp_path / "network.safetensors")
    words = ["--network", str(tmp_path / "network.safetensors"), "--data.root", config.root]
    assert main(["eval", "latents", *words, "--data.num-pairs", "10", "--json"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["pairs"] == 20
    assert result["levels"]["2"]["alike"] == pytest.approx(found["alike"].mean().item(), rel=1e-3)


@pytest.mark.parametrize("change", [{"num_pairs": 1}, {"gap_seconds": 0.0}, {"seed": -1}])
def test_halves_of_no_pairs_are_refused(change):
    with pytest.raises(MidwayError, match="give 2 pairs or more"):
        HalvesConfig(**change)
