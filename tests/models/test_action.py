"""The action-conditioned network: its states, its roll-outs and what it refuses."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from midway.errors import MidwayError
from midway.models.action import ActionNetwork, ActionNetworkConfig
from midway.models.encoders.vit import EncoderConfig

ENCODER = EncoderConfig(
    image_size=(32, 32), patch_size=8, width=24, depth=3, heads=2, drop_path=0.1, init_std=0.2
)
CONFIG = ActionNetworkConfig(
    encoder=ENCODER,
    level=2,
    action_size=3,
    num_tokens=2,
    hidden=8,
    forward_depth=2,
    forward_heads=3,
    init_std=0.2,
)


@pytest.fixture
def network() -> ActionNetwork:
    torch.manual_seed(0)
    return ActionNetwork(CONFIG)


def images() -> torch.Tensor:
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(1))


def actions(steps: int) -> list[torch.Tensor]:
    return list(torch.randn(steps, 4, 3, generator=torch.Generator().manual_seed(2)))


def test_states_are_layer_normalised_features_of_the_level(network: ActionNetwork) -> None:
    network.eval()
    found = network.state(images())
    features = network.encoder.levels(images(), (2,))[0]
    torch.testing.assert_close(found, nn.LayerNorm(24, elementwise_affine=False)(features))
    assert found.shape == (4, 1 + 16, 24)
    torch.testing.assert_close(network.target(images()), found.detach())


def test_a_roll_out_repeats_single_steps_whose_states_can_be_fed_back(
    network: ActionNetwork,
) -> None:
    network.eval()
    state = network.state(images())
    found = network.roll_out(state, actions(3))
    for action, predicted in zip(actions(3), found, strict=True):
        state = network.step(state, action)
        torch.testing.assert_close(predicted, state)
        torch.testing.assert_close(state.mean(-1), torch.zeros(4, 17), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            state.std(-1, correction=0), torch.ones(4, 17), atol=1e-3, rtol=0
        )


def test_another_action_changes_the_prediction_of_its_own_sample_only(
    network: ActionNetwork,
) -> None:
    state, (action,) = network.state(images()), actions(1)
    other = action.clone()
    other[2] += 1
    change = (network.step(state, action) - network.step(state, other)).abs().amax((1, 2))
    assert (change > 1e-4).tolist() == [False, False, True, False]


def test_the_teacher_starts_equal_follows_and_never_trains(network: ActionNetwork) -> None:
    network.train()
    assert network.encoder.training
    assert not network.teacher.training
    assert not any(p.requires_grad for p in network.teacher.parameters())
    for parameter in network.encoder.parameters():
        parameter.data += 1
    before = [p.clone() for p in network.teacher.parameters()]
    network.update_teacher(0.75)
    for old, new in zip(before, network.teacher.parameters(), strict=True):
        torch.testing.assert_close(new, old + 0.25)


def test_attention_can_start_comparing() -> None:
    torch.manual_seed(0)
    attention = ActionNetwork(replace(CONFIG, starts_matching=True)).forward_model.blocks[0].attn
    queries, keys, _ = attention.qkv.weight.chunk(3)
    assert torch.equal(queries, keys)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"level": 4}, "level 4 lies above the encoder's 3 blocks"),
        ({"forward_heads": 5}, "forward_heads 5 does not divide the encoder's width 24"),
        ({"action_size": 0}, "action_size 0 is too small"),
        ({"hidden": 2**17}, "hidden"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, int], said: str) -> None:
    with pytest.raises(MidwayError, match=said):
        replace(CONFIG, **changes)
