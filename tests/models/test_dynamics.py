"""Every ablation of table 3 and 5 means what its name says."""

import pytest
import torch

from midway.errors import MidwayError
from midway.models.dynamics import DynamicsConfig
from midway.models.midway import MidwayNetwork, MidwayOutput
from midway.nn.blocks import Block
from midway.nn.mimetic import sincos_positions
from tests.models.networks import tiny


def _run(network: MidwayNetwork, seed: int = 0) -> MidwayOutput:
    generator = torch.Generator().manual_seed(seed)
    source, target = torch.randn(2, 2, 3, 32, 32, generator=generator)
    return network(source, target)


def _network(**dynamics: object) -> MidwayNetwork:
    torch.manual_seed(0)
    network = MidwayNetwork(tiny(**dynamics))
    for parameter in network.parameters():  # zeros at the start would hide what matters
        torch.nn.init.normal_(parameter, std=0.2)
    return network.eval()


def test_everything_is_readable_by_level_with_its_shape() -> None:
    out = _run(_network())
    assert list(out.levels) == [3, 2, 1]
    for level in out.levels.values():
        assert level.motion_latents.shape == (2, 5, 12)
        assert level.midway_tokens.shape == (2, 5 + 2 * 17, 12)
        for features in (
            level.source_backward,
            level.target_backward,
            level.prediction,
            level.target,
            *level.gates,
        ):
            assert features.shape == (2, 17, 24)
        assert len(level.gates) == 2
        assert level.loss.shape == ()


def test_without_latent_dynamics_the_prediction_ignores_the_target() -> None:
    network = _network(latent_dynamics=False)
    source, target, other = torch.randn(3, 2, 3, 32, 32)
    one, two = network(source, target), network(source, other)
    for level in (1, 2, 3):
        assert one.levels[level].motion_latents.shape == (2, 0, 12)
        assert torch.equal(one.levels[level].prediction, two.levels[level].prediction)
    assert not hasattr(network.dynamics, "midway_path")


def test_with_latent_dynamics_the_target_reaches_the_prediction_through_the_latents_only() -> None:
    network = _network()
    source, target, other = torch.randn(3, 2, 3, 32, 32)
    one, two = network(source, target), network(source, other)
    assert not torch.allclose(one.levels[3].prediction, two.levels[3].prediction)
    assert torch.equal(one.levels[3].source_backward, two.levels[3].source_backward)


def test_without_backward_layers_the_levels_own_features_serve() -> None:
    network = _network(backward_layers=False)
    images = torch.randn(2, 3, 32, 32)
    out = network(images, images)
    for level, features in zip((1, 2, 3), network.encoder.levels(images, (1, 2, 3)), strict=True):
        torch.testing.assert_close(out.levels[level].source_backward, features)
    assert not list(network.dynamics.backward_layers.parameters())


def test_backward_features_use_the_levels_above() -> None:
    network = _network()
    images = torch.randn(2, 3, 32, 32)
    before = network(images, images).levels[1].source_backward
    with torch.no_grad():
        network.dynamics.backward_layers["3"].norm1.weight.mul_(2)
    assert not torch.allclose(before, network(images, images).levels[1].source_backward)


def test_refinement_feeds_the_prediction_above_to_the_lower_level() -> None:
    for refinement in (True, False):
        network = _network(refinement=refinement)
        before = _run(network)
        with torch.no_grad():  # changes the prediction of level 3 and nothing else of that level
            network.dynamics.forward_models["3"].blocks[-1].mlp.fc2.weight.mul_(2)
        after = _run(network)
        assert torch.equal(before.levels[3].motion_latents, after.levels[3].motion_latents)
        same = torch.equal(before.levels[2].motion_latents, after.levels[2].motion_latents)
        assert same is not refinement


def test_latents_accumulate_below_the_top_level_but_not_at_it() -> None:
    network = _network()
    out = _run(network)
    top, middle = out.levels[3], out.levels[2]
    assert torch.equal(top.motion_latents, top.midway_tokens[:, :5])
    torch.testing.assert_close(
        middle.motion_latents, middle.midway_tokens[:, :5] + top.motion_latents
    )


def test_fewer_levels_make_fewer_parts() -> None:
    network = _network(levels=(3,))
    assert list(_run(network).levels) == [3]
    assert list(network.dynamics.forward_models) == ["3"]


def test_without_gates_there_are_none() -> None:
    network = _network(gates=False)
    assert _run(network).levels[3].gates == ()
    assert not any("gates" in name for name, _ in network.named_parameters())


def test_a_gates_input_is_the_block_before_or_the_block_itself() -> None:
    previous, own = _network(gate_input="previous"), _network(gate_input="own")
    own.load_state_dict(previous.state_dict())
    for network, index in ((previous, 0), (own, 1)):
        model = network.dynamics.forward_models["3"]
        seen = []
        for block in model.blocks:
            block.register_forward_pre_hook(lambda _, args, seen=seen: seen.append(args[0]))
        out = _run(network)
        expected = model.gates[0](seen[index][:, 5:])
        torch.testing.assert_close(out.levels[3].gates[0], expected)


@pytest.mark.parametrize(
    "change",
    [
        {"midway_depth": 1},
        {"forward_depth": 2},
        {"midway_width": 6},
    ],
)
def test_capacity_fields_shrink_the_dynamics(change: dict) -> None:
    def count(network: MidwayNetwork) -> int:
        return sum(p.numel() for p in network.dynamics.parameters())

    assert count(_network(**change)) < count(_network())


def test_positions_follow_the_image_size() -> None:
    network = _network()
    images = torch.randn(1, 3, 40, 64)
    assert network(images, images).levels[1].prediction.shape == (1, 41, 24)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"levels": (3, 2)}, "must rise"),
        ({"levels": ()}, "must rise"),
        ({"midway_width": 10}, "midway_heads"),
    ],
)
def test_what_does_not_fit_is_told(fields: dict, message: str) -> None:
    with pytest.raises(MidwayError, match=message):
        DynamicsConfig(**fields)


def test_a_matching_start_sets_positions_and_tells_targets_from_sources() -> None:
    path = MidwayNetwork(tiny(starts_matching=True)).dynamics.midway_path
    source, target = path.positions((4, 4))
    assert torch.equal(source, sincos_positions((4, 4), 12))
    apart = target - source
    assert apart.abs().max() > 0.01
    torch.testing.assert_close(apart, apart[:, :1].expand_as(apart))


def test_a_matching_start_compares_in_the_first_blocks_and_carries_in_all() -> None:
    dynamics = MidwayNetwork(tiny(starts_matching=True)).dynamics
    transformers = [*dynamics.midway_path.blocks.values(), *dynamics.forward_models.values()]
    assert len(transformers) == 6
    for transformer in transformers:
        blocks = [part for part in transformer.modules() if isinstance(part, Block)]
        for number, block in enumerate(blocks):
            query, key, value = block.attn.qkv.weight.chunk(3)
            assert torch.equal(query, key) is (number == 0)
            # Rotations by the value and back by the output projection, each times 0.7.
            torch.testing.assert_close(
                block.attn.proj.weight @ value, 0.49 * torch.eye(len(value)), atol=1e-5, rtol=0
            )


def test_as_published_the_position_table_starts_with_zeros() -> None:
    assert not MidwayNetwork(tiny()).dynamics.midway_path.pos_embed.any()


def test_a_matching_start_needs_a_width_for_sines_and_cosines() -> None:
    with pytest.raises(MidwayError, match="midway_width 18 is not a multiple of 4"):
        DynamicsConfig(midway_width=18, starts_matching=True)


def test_correlation_changes_the_latents_of_every_level_and_is_off_by_default() -> None:
    assert _network().dynamics.midway_path.correlation is None
    network = _network(correlation_radius=1)
    correlated = _run(network).levels
    network.dynamics.midway_path.correlation = None
    plain = _run(network).levels
    for level in (1, 2, 3):
        assert not torch.allclose(correlated[level].motion_latents, plain[level].motion_latents)
    with pytest.raises(MidwayError, match="correlation_radius"):
        DynamicsConfig(correlation_radius=-1)
