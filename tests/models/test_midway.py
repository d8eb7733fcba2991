import pytest
import torch

from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork, NetworkConfig
from tests.models.networks import tiny


def test_the_dynamics_of_vit_s_have_the_published_number_of_parameters() -> None:
    with torch.device("meta"):
        network = MidwayNetwork(NetworkConfig())
    trainable = sum(p.numel() for p in network.dynamics.parameters())
    assert round(trainable / 1e6, 1) == 36.6
    assert all(p.requires_grad for p in network.dynamics.parameters())


def test_the_teacher_starts_equal_takes_no_gradient_and_follows() -> None:
    network = MidwayNetwork(tiny())
    images = torch.randn(2, 3, 32, 32)
    network.eval()
    assert torch.equal(network.encoder(images), network.teacher.encoder(images))
    assert not any(p.requires_grad for p in network.teacher.parameters())
    before = network.teacher.down.weight.clone()
    with torch.no_grad():
        network.dynamics.down.weight.add_(1)
    network.update_teacher(0.75)
    torch.testing.assert_close(network.teacher.down.weight, before + 0.25)


def test_the_teacher_stays_in_evaluation_mode() -> None:
    network = MidwayNetwork(tiny()).train()
    assert network.encoder.training
    assert not network.teacher.encoder.training


def test_both_orders_stacked_equal_each_order_alone() -> None:
    network = MidwayNetwork(tiny()).eval()
    source, target = torch.randn(2, 3, 3, 32, 32)
    both = network.forward_both_orders(source, target)
    forth, back = network(source, target), network(target, source)
    for level in (1, 2, 3):
        expected = torch.cat([forth.levels[level].prediction, back.levels[level].prediction])
        torch.testing.assert_close(both.levels[level].prediction, expected)
        expected = torch.cat(
            [forth.levels[level].motion_latents, back.levels[level].motion_latents]
        )
        torch.testing.assert_close(both.levels[level].motion_latents, expected)
        # Of the last midway block nothing else is read.
        assert both.levels[level].midway_tokens.shape == expected.shape


@torch.no_grad()
def test_one_level_is_the_same_without_those_below_it() -> None:
    network = MidwayNetwork(tiny())  # levels 3, 2 and 1, from the top down
    source, target = torch.randn(2, 2, 3, 32, 32)
    expected, run = network(source, target).levels[2], []
    for level, model in network.dynamics.forward_models.items():
        model.register_forward_hook(lambda *_, level=level: run.append(level))
    found = network.at_level(source, target, 2)
    assert run == ["3", "2"]
    assert torch.equal(found.prediction, expected.prediction)
    assert torch.equal(found.motion_latents, expected.motion_latents)


def test_no_gradient_reaches_the_target_frame() -> None:
    network = MidwayNetwork(tiny())
    source, target = torch.randn(2, 1, 3, 32, 32).requires_grad_().unbind()
    target.retain_grad()
    source.retain_grad()
    network(source, target).levels[1].loss.backward()
    assert source.grad is not None
    assert target.grad is None


def test_levels_at_or_above_the_top_are_refused() -> None:
    with pytest.raises(MidwayError, match="below the encoder's top level"):
        tiny(levels=(2, 4))


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(MidwayError, match="forward_heads"):
        tiny(forward_heads=5)
