"""The motion probe recovers motion that is there and finds none where there is none."""

import pytest
import torch
from torch.nn import functional as F

from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError
from midway.evals.probes.motion import (
    STRENGTHS,
    PairSet,
    fit_ridge,
    motion_features,
    motion_probe,
    patch_flow,
    probe_score,
    synthetic_pairs,
)
from midway.models.dynamics import LevelOutput
from midway.models.midway import MidwayNetwork, MidwayOutput
from tests.models.networks import tiny

WORLD = WorldConfig(height=32, width=48, num_objects=2)


class FlowReader(MidwayNetwork):
    """Whose motion latents and midway tokens mix the flow painted into the target image."""

    def forward(self, source, target):
        flow = F.avg_pool2d(target[:, :2], 8).flatten(2).transpose(1, 2)
        mixed = F.pad(flow @ torch.tensor([[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]), (0, 9))
        latents = mixed.mean(1, keepdim=True).expand(-1, 5, -1)
        source_tokens = torch.zeros(len(mixed), 1 + mixed.shape[1], 12)
        tokens = torch.cat([latents, source_tokens, mixed[:, :1], mixed], dim=1)
        nothing = torch.zeros(())
        level = LevelOutput(
            motion_latents=latents,
            midway_tokens=tokens,
            source_backward=nothing,
            target_backward=nothing,
            prediction=nothing,
            target=nothing,
            gates=(),
            loss=nothing,
        )
        return MidwayOutput(levels={3: level})


def painted_pairs(count: int, seed: int, *, honest: bool = True) -> PairSet:
    """Random flows, seen in the target image; if not honest, other flows are seen."""
    generator = torch.Generator().manual_seed(seed)
    flow, other = 3 * torch.randn(2, count, 32, 48, 2, generator=generator) + 1
    seen = (flow if honest else other).permute(0, 3, 1, 2)
    target = torch.cat([seen, seen[:, :1]], dim=1)
    return PairSet(source=target, target=target, flow=flow, camera_motion=flow.mean((1, 2)))


def network_of(kind: type[MidwayNetwork] = MidwayNetwork, **dynamics: object) -> MidwayNetwork:
    torch.manual_seed(0)
    network = kind(tiny(**dynamics))
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def test_motion_that_is_linearly_there_is_explained():
    score = motion_probe(network_of(FlowReader), painted_pairs(20, 0), painted_pairs(10, 1))
    for part in (score.flow, score.camera):
        assert part.explained > 0.999
        assert part.epe < 0.02 * part.epe_mean < part.epe_zero
    assert score.predicted_flow.shape == score.true_flow.shape == (10, 4, 6, 2)
    torch.testing.assert_close(score.predicted_flow, score.true_flow, atol=0.01, rtol=0)


def test_motion_that_is_not_there_is_not_explained():
    train, test = (painted_pairs(100, seed, honest=False) for seed in (0, 1))
    score = motion_probe(network_of(FlowReader), train, test)
    for part in (score.flow, score.camera):
        assert -0.05 < part.explained < 0.02


def test_more_random_features_than_pairs_explain_next_to_nothing():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(150, 400, generator=generator, dtype=torch.float64)
    motion = torch.randn(150, 2, generator=generator, dtype=torch.float64)
    probe = fit_ridge(features[:100], motion[:100])
    assert -0.1 < probe_score(probe(features[100:]), motion[100:], motion[:100]).explained < 0.1


@pytest.mark.parametrize("dim", [7, 90])
def test_the_probe_is_the_ridge_solution_of_one_strength(dim):
    generator = torch.Generator().manual_seed(0)
    x = 3 + 2 * torch.randn(10, 5, dim, generator=generator, dtype=torch.float64)
    y = x[..., :2] + torch.randn(10, 5, 2, generator=generator, dtype=torch.float64)
    probe = fit_ridge(x, y)
    flat = x.flatten(0, 1)
    standard = (flat - flat.mean(0)) / flat.std(0, correction=0)
    centred = y.flatten(0, 1) - y.mean((0, 1))
    predictions = []
    for strength in STRENGTHS:
        rows = torch.cat([standard, (50 * strength) ** 0.5 * torch.eye(dim).double()])
        goals = torch.cat([centred, torch.zeros(dim, 2).double()])
        solution = torch.linalg.lstsq(rows, goals).solution
        predictions.append(standard @ solution + y.mean((0, 1)))
    errors = [(probe(flat) - each).abs().max() for each in predictions]
    assert min(errors) < 1e-8


def test_the_strength_suits_pairs_that_the_fit_has_not_seen():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(400, 60, generator=generator, dtype=torch.float64)
    motion = features[:, :2] + 4 * torch.randn(400, 2, generator=generator, dtype=torch.float64)
    train, test = slice(0, 80), slice(80, None)
    chosen = fit_ridge(features[train], motion[train])
    unbounded = torch.linalg.lstsq(features[train], motion[train]).solution
    errors = [
        (prediction - motion[test]).square().mean()
        for prediction in (chosen(features[test]), features[test] @ unbounded)
    ]
    assert errors[0] < 0.7 * errors[1]


def test_the_score_equals_a_slow_loop():
    torch.manual_seed(0)
    predicted, true = torch.randn(2, 3, 4, 5, 2, dtype=torch.float64)
    train = torch.randn(6, 4, 5, 2, dtype=torch.float64) + 1
    mean_u, mean_v = (sum(train[..., i].flatten().tolist()) / 120 for i in (0, 1))
    sums = {"epe": 0.0, "zero": 0.0, "mean": 0.0, "squared": 0.0, "squared_mean": 0.0}
    for (pu, pv), (u, v) in zip(
        predicted.view(-1, 2).tolist(), true.reshape(-1, 2).tolist(), strict=True
    ):
        sums["epe"] += ((pu - u) ** 2 + (pv - v) ** 2) ** 0.5 / 60
        sums["zero"] += (u**2 + v**2) ** 0.5 / 60
        sums["mean"] += ((mean_u - u) ** 2 + (mean_v - v) ** 2) ** 0.5 / 60
        sums["squared"] += (pu - u) ** 2 + (pv - v) ** 2
        sums["squared_mean"] += (mean_u - u) ** 2 + (mean_v - v) ** 2
    score = probe_score(predicted, true, train)
    assert score.epe == pytest.approx(sums["epe"])
    assert score.epe_zero == pytest.approx(sums["zero"])
    assert score.epe_mean == pytest.approx(sums["mean"])
    assert score.explained == pytest.approx(1 - sums["squared"] / sums["squared_mean"])


def test_patch_flow_is_the_mean_of_each_patch():
    flow = torch.randn(2, 16, 24, 2)
    pooled = patch_flow(flow, 8)
    for n in range(2):
        for i in range(2):
            for j in range(3):
                expected = flow[n, 8 * i : 8 * i + 8, 8 * j : 8 * j + 8].double().mean((0, 1))
                torch.testing.assert_close(pooled[n, i, j], expected)


def test_features_are_the_tokens_of_source_and_target_at_each_patch_of_all_levels():
    network = network_of().train()
    pairs = synthetic_pairs(WORLD, (0, 1), gap_seconds=0.5, pairs_per_world=2)
    tokens, latents = motion_features(network, pairs, batch_size=3)
    assert network.training
    assert tokens.shape == (4, 4, 6, 3 * 2 * 12)
    assert latents.shape == (4, 3 * 5 * 12)
    whole = motion_features(network, pairs, batch_size=4)
    torch.testing.assert_close(tokens, whole[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(latents, whole[1], rtol=1e-4, atol=1e-5)

    captured = []
    hook = network.register_forward_hook(lambda _module, _inputs, output: captured.append(output))
    motion_features(network, pairs, batch_size=4)
    hook.remove()
    row, column = 2, 5
    place = 1 + row * 6 + column
    expected_tokens, expected_latents = [], []
    for level in (3, 2, 1):
        out = captured[0].levels[level]
        expected_tokens += [out.midway_tokens[:, 5 + place], out.midway_tokens[:, 5 + 25 + place]]
        expected_latents.append(out.motion_latents.reshape(4, 60))
    torch.testing.assert_close(whole[0][:, row, column], torch.cat(expected_tokens, 1).double())
    torch.testing.assert_close(whole[1], torch.cat(expected_latents, 1).double())


def test_synthetic_pairs_are_what_the_worlds_show():
    pairs = synthetic_pairs(WORLD, (4, 7), gap_seconds=0.25, pairs_per_world=3)
    assert pairs.source.shape == pairs.target.shape == (6, 32, 48, 3)
    world, seconds = World(WORLD, 7), 2 / 3
    assert (pairs.source[4].numpy() == world.frame(seconds).image).all()
    assert (pairs.target[4].numpy() == world.frame(seconds + 0.25).image).all()
    assert (pairs.flow[4].numpy() == world.flow(seconds, seconds + 0.25).flow).all()
    background = WorldConfig(height=32, width=48, num_objects=0)
    pairs = synthetic_pairs(background, range(3), gap_seconds=0.5, pairs_per_world=1)
    centre = pairs.flow[:, 15:17, 23:25].double().mean((1, 2))
    torch.testing.assert_close(pairs.camera_motion, centre, atol=1e-4, rtol=0)


def test_a_small_network_is_probed_from_end_to_end():
    train = synthetic_pairs(WORLD, range(4), gap_seconds=0.5, pairs_per_world=2)
    test = synthetic_pairs(WORLD, range(10, 12), gap_seconds=0.5, pairs_per_world=2)
    network = network_of()
    first, second = (motion_probe(network, train, test) for _ in range(2))
    assert first.flow == second.flow
    assert first.camera == second.camera
    torch.testing.assert_close(first.true_flow, patch_flow(test.flow, 8))


def test_what_cannot_be_probed_is_said():
    pairs = painted_pairs(2, 0)
    with pytest.raises(MidwayError, match="no motion latents"):
        motion_probe(network_of(latent_dynamics=False), pairs, pairs)
    with pytest.raises(MidwayError, match="fewer than two training pairs"):
        motion_probe(network_of(), painted_pairs(1, 0), pairs)
