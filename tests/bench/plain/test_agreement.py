"""Both steps agree on loss and gradients, and the comparison finds what a step loses."""

from dataclasses import replace
from math import inf
from statistics import fmean

import pytest
import torch

from midway.bench.plain.agreement import Agreement, compare
from midway.bench.plain.step import PlainStep
from midway.data.views.render import Clips
from midway.errors import MidwayError
from midway.methods.midway import Midway
from midway.train.objective import StepOutput
from tests.bench.plain.small import small_clips, small_method


def test_both_steps_agree_in_float32_on_loss_and_every_gradient_though_drop_path_is_on() -> None:
    method = small_method(drop_path=0.3)
    method.train()
    agreement = compare(method, small_clips(), None)
    agreement.check()
    assert agreement.loss_difference < 1e-5
    assert agreement.gradient_difference < 1e-4
    assert method.network.encoder.training
    assert not method.network.dino_loss.logit_count


def test_in_bfloat16_ours_is_no_further_from_float32_than_rounding_takes_the_plain_one() -> None:
    """In the mean over six batches: in one, the ratio of a small network is a matter of chance."""
    found = [
        compare(method, small_clips(4), torch.bfloat16)
        for method in (small_method(0), small_method(1))
        for _ in range(3)
    ]
    ours = fmean(each.gradient_error or inf for each in found)
    plain = fmean(each.plain_gradient_error or 0 for each in found)
    for each in found:
        replace(each, gradient_error=ours, plain_gradient_error=plain).check()
        assert each.loss_error is not None
        assert each.loss_error < 0.01
    assert 0 < ours < 1.5 * plain


@pytest.mark.parametrize("lost", ["a gradient", "the value of a gradient", "the loss"])
def test_a_step_that_loses_something_does_not_agree(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    whole = Midway.loss
    method = small_method()
    tokens = method.network.dynamics.midway_path.motion_tokens

    def loss(self: Midway, clips: Clips) -> StepOutput:
        tokens.requires_grad_(lost != "a gradient")
        value = whole(self, clips).loss
        tokens.requires_grad_(True)
        if lost == "the value of a gradient":
            nothing = 0 * tokens.sum()
            nothing.register_hook(lambda grad: grad * torch.nan)
            value = value + nothing
        return StepOutput(loss=value * (torch.nan if lost == "the loss" else 1), logs={})

    monkeypatch.setattr(Midway, "loss", loss)
    agreement = compare(method, small_clips(), None)
    if lost != "the loss":
        assert agreement.worst_parameter.endswith("motion_tokens")
    with pytest.raises(MidwayError, match="disagree"):
        agreement.check()


@pytest.mark.parametrize(
    "wrong", [{"loss_error": 0.02}, {"gradient_error": inf, "plain_gradient_error": inf}]
)
def test_what_is_wrong_in_bfloat16_alone_does_not_agree(wrong: dict[str, float]) -> None:
    agreement = compare(small_method(), small_clips(4), torch.bfloat16)
    with pytest.raises(MidwayError, match="disagree"):
        replace(agreement, **wrong).check()


def test_a_step_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PlainStep.loss
    monkeypatch.setattr(PlainStep, "loss", lambda self, clips: 1.001 * whole(self, clips))
    with pytest.raises(MidwayError, match="disagree: Agreement"):
        compare(small_method(), small_clips(), None).check()
    bad = Agreement(loss_difference=0, gradient_difference=1e-3, worst_parameter="a")
    with pytest.raises(MidwayError, match="disagree"):
        bad.check()


def test_attention_of_the_plain_step_is_compared_as_it_is_timed() -> None:
    with pytest.raises(MidwayError, match="disagree"):
        compare(small_method(), small_clips(), None, attend=lambda q, k, v: v).check()
