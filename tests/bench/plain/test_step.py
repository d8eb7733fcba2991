"""The plain step trains as ours does: clipping, weight decay, optimiser, teacher and centre."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from midway.bench import step as step_module
from midway.bench.plain.step import PlainStep
from midway.bench.step import FastStep, progress
from tests.bench.plain.small import small_clips, small_method


def test_both_steps_clip_alike_and_decay_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "OPTIM", replace(step_module.OPTIM, clip_norm=1e-3))
    ours, theirs = small_method(), small_method()
    clips = small_clips()
    fast = FastStep(ours, None)
    plain = PlainStep(theirs, lr=1e-4, clip_norm=1e-3, autocast_type=None)
    fast.step(clips)
    plain.step(clips, 1.0)
    moments = plain.optimizer.state
    for name, parameter in theirs.named_parameters():
        if not parameter.requires_grad:
            continue
        twin = ours.get_parameter(name)
        # After one step, a tenth of the clipped gradient.
        found, wanted = (x["exp_avg"] for x in (fast.optimizer.state[twin], moments[parameter]))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * wanted.norm().item())
        assert _decay(fast.optimizer, twin) == _decay(plain.optimizer, parameter)


def _decay(optimizer: torch.optim.Optimizer, parameter: Tensor) -> float:
    (group,) = (
        group
        for group in optimizer.param_groups
        if any(parameter is each for each in group["params"])
    )
    return group["weight_decay"]


def test_three_steps_of_both_end_at_the_same_weights_teacher_and_centre() -> None:
    ours, theirs = small_method(), small_method()
    fast = FastStep(ours, None)
    plain = PlainStep(theirs, lr=1e-4, clip_norm=3.0, autocast_type=None)
    before = ours.network.encoder.blocks[0].attn.qkv.weight.detach().clone()
    for _ in range(3):
        clips = small_clips()
        fast.step(clips)
        plain.step(clips, theirs.config.momenta(progress(clips))[0])
    assert (ours.network.encoder.blocks[0].attn.qkv.weight - before).abs().max() > 1e-4
    for name, value in theirs.state_dict().items():
        # Adam divides by the gradient's own size: where that is rounding alone, so is the step.
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-3, atol=2e-4, msg=name)
