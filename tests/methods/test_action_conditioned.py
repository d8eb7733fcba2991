"""Action-conditioned dynamics: the loss against a slow loop, and what trains."""

from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.methods.action_conditioned import ActionConditioned, ActionConditionedConfig
from midway.models.action import ActionNetworkConfig
from tests.models.test_action import CONFIG

TINY = ActionConditionedConfig(network=CONFIG, num_frames=4)


def build(config: ActionConditionedConfig) -> tuple[ActionConditioned, Clips]:
    torch.manual_seed(0)
    method = ActionConditioned(config).eval()
    # The teacher has moved away from the student, so that it matters which one is the target.
    for parameter in method.network.teacher.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return method, example_clips(method.spec, 3, generator=torch.Generator().manual_seed(1))


def test_the_loss_equals_a_slow_loop_over_samples_and_steps() -> None:
    method, clips = build(TINY)
    frames, actions = clips.views["frames"][:, 0], clips.signals["action"]
    losses = torch.zeros(3)
    for sample in range(3):
        state = method.network.state(frames[:1, sample])
        for step in range(3):
            state = method.network.step(state, actions[step, sample][None])
            seen = method.network.target(frames[step + 1 : step + 2, sample])
            unit = [x / x.norm(dim=-1, keepdim=True) for x in (state, seen)]
            losses[step] += (unit[0] - unit[1]).square().sum(-1).mean() / 3
    out = method.loss(clips)
    assert out.loss.item() == pytest.approx(losses.mean().item(), rel=1e-4)
    logged = [out.logs[f"dense_loss_{step}"].item() for step in (1, 2, 3)]
    assert logged == pytest.approx(losses.tolist(), rel=1e-4)


def test_the_action_at_the_last_frame_is_not_used() -> None:
    method, clips = build(TINY)
    for place, is_used in ((2, True), (3, False)):
        changed = clips.signals["action"].clone()
        changed[place] += 1
        other = Clips(views=clips.views, seconds=clips.seconds, signals={"action": changed})
        assert (method.loss(other).loss != method.loss(clips).loss).item() == is_used


def test_a_frozen_encoder_gets_no_gradient_and_no_group() -> None:
    method, clips = build(replace(TINY, encoder_lr_scale=0.0))
    method.loss(clips).loss.backward()
    assert all(p.grad is None for p in method.network.encoder.parameters())
    names = {group.name.split("/")[0] for group in method.parameter_groups()}
    assert names == {"forward_model", "action"}


def test_health_compares_each_step_with_copying_the_first_frame() -> None:
    method, clips = build(TINY)
    frames = clips.views["frames"].clone()
    # The last frame is the first one again: copying is perfect there.
    frames[3] = frames[0]
    clips = Clips(views={"frames": frames}, seconds=clips.seconds, signals=clips.signals)
    with torch.no_grad():
        found = method.health(SimpleNamespace(render=lambda spec: clips))
        losses = method.step_losses(clips)
        states = [method.network.target(frame) for frame in frames[:, 0]]
    copied = 2 - 2 * torch.cosine_similarity(states[0], states[1], dim=-1).mean()
    assert found["dense_over_copy_1"].item() == pytest.approx((losses[0] / copied).item(), rel=1e-4)
    assert found["dense_over_copy_3"] > 1000


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"num_frames": 1}, "num_frames 1 is too small"),
        ({"teacher_momentum": 1.5}, "teacher_momentum = 1.5; give 0 to 1"),
        ({"encoder_lr_scale": -1.0}, "encoder_lr_scale = -1.0; give 0 or more"),
    ],
)
def test_values_out_of_range_are_refused(changes: dict[str, float], said: str) -> None:
    with pytest.raises(MidwayError, match=said):
        replace(TINY, **changes)  # pyright: ignore[reportArgumentType]


def test_the_defaults_have_the_paper_s_encoder() -> None:
    config = ActionConditionedConfig()
    assert config.network == ActionNetworkConfig()
    assert (config.network.encoder.width, config.network.level) == (384, 12)
