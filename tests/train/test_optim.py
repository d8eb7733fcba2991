import math
from dataclasses import replace

import pytest
import torch
from torch import nn

from midway.errors import MidwayError
from midway.experiments.bdd100k import videomae_vits
from midway.train.objective import ParameterGroup, Progress, parameter_groups
from midway.train.optim import (
    AdamW,
    OptimConfig,
    Rates,
    check_falling,
    clip_gradients,
    rates_at,
)

from .toy import Toy


def with_gradients(scale: float) -> nn.Sequential:
    generator = torch.Generator().manual_seed(1)
    module = nn.Sequential(nn.Linear(5, 7), nn.LayerNorm(7), nn.Linear(7, 2))
    for i, parameter in enumerate(module.parameters()):
        parameter.grad = scale * (i + 1) * torch.randn(parameter.shape, generator=generator)
    return module


def gradients(module: nn.Module) -> list[torch.Tensor]:
    return [p.grad.clone() for p in module.parameters() if p.grad is not None]


def test_global_clipping_agrees_with_torch_and_gives_the_norm_before():
    ours, reference = with_gradients(1.0), with_gradients(1.0)
    config = OptimConfig(clip="global", clip_norm=3.0)
    norm = clip_gradients(parameter_groups(ours), config)
    torch.testing.assert_close(norm, nn.utils.clip_grad_norm_(reference.parameters(), 3.0))
    torch.testing.assert_close(gradients(ours), gradients(reference))


def test_clipping_per_tensor_agrees_with_a_loop_over_tensors():
    ours, reference = with_gradients(0.5), with_gradients(0.5)
    clip_gradients(parameter_groups(ours), OptimConfig(clip="per_tensor", clip_norm=3.0))
    shrunk = 0
    for parameter in reference.parameters():
        assert parameter.grad is not None
        factor = 3.0 / (parameter.grad.norm() + 1e-6)
        if factor < 1:
            shrunk += 1
            parameter.grad *= factor
    assert 0 < shrunk < len(list(reference.parameters()))
    torch.testing.assert_close(gradients(ours), gradients(reference))


@pytest.mark.parametrize("clip", ["global", "per_tensor"])
def test_a_group_that_is_not_clipped_keeps_its_gradient_but_counts_in_the_norm(clip):
    covered, free = with_gradients(1.0), with_gradients(100.0)
    before = gradients(covered) + gradients(free)
    expected = torch.cat([g.flatten() for g in before]).norm()
    groups = parameter_groups(covered) + parameter_groups(free, "free", clip=False)
    norm = clip_gradients(groups, OptimConfig(clip=clip, clip_norm=0.1))
    torch.testing.assert_close(norm, expected)
    torch.testing.assert_close(gradients(free), before[len(before) // 2 :], rtol=0, atol=0)
    assert max(float(g.norm()) for g in gradients(covered)) <= 0.1001


def test_without_clipping_gradients_stay_as_they_are():
    module = with_gradients(100.0)
    before = gradients(module)
    clip_gradients(parameter_groups(module), OptimConfig(clip="none"))
    torch.testing.assert_close(gradients(module), before, rtol=0, atol=0)


def test_biases_and_vectors_are_not_decayed():
    class Mixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(3, 4)
            self.norm = nn.LayerNorm(4)
            self.tokens = nn.Parameter(torch.zeros(1, 10, 4))
            self.frozen = nn.Parameter(torch.zeros(2, 2), requires_grad=False)

    module = Mixed()
    decayed, free = parameter_groups(module, "net")
    assert {id(p) for p in decayed.parameters} == {id(module.linear.weight), id(module.tokens)}
    assert len(free.parameters) == 3
    assert (decayed.weight_decay, free.weight_decay) == ("scheduled", 0)


def test_rates_reach_the_groups_but_for_a_decay_of_their_own():
    toy = Toy()
    first, last = toy.student.first, toy.student.last
    groups = [
        *parameter_groups(first, "first"),
        *parameter_groups(last, "last", weight_decay=0.01),
    ]
    optimizer = AdamW(toy, groups, OptimConfig())
    optimizer.set_rates(Rates(lr=0.2, weight_decay=0.3))
    got = {g["name"]: (g["lr"], g["weight_decay"]) for g in optimizer.param_groups}
    assert got == {
        "first": (0.2, 0.3),
        "first/no_decay": (0.2, 0),
        "last": (0.2, 0.01),
        "last/no_decay": (0.2, 0),
    }


def test_a_parameter_without_a_group_or_in_two_is_an_error():
    toy = Toy()
    with pytest.raises(
        ValueError, match=r"in no group: student\.last\.weight, student\.last\.bias"
    ):
        AdamW(toy, parameter_groups(toy.student.first), OptimConfig())
    twice = [ParameterGroup(name="twice", parameters=list(toy.student.parameters()) * 2)]
    with pytest.raises(ValueError, match="two groups"):
        AdamW(toy, twice, OptimConfig())


def test_a_bad_step_changes_nothing_and_is_counted_until_a_good_one():
    toy = Toy()
    optimizer = AdamW(toy, toy.parameter_groups(), OptimConfig())
    for parameter in toy.student.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    before = [p.detach().clone() for p in toy.student.parameters()]
    for _ in range(2):
        optimizer.step_unless(torch.ones(()))
    torch.testing.assert_close([*toy.student.parameters()], before, rtol=0, atol=0)
    assert (optimizer.skipped_steps, optimizer.skipped_in_a_row) == (2, 2)
    for parameter in toy.student.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step_unless(torch.zeros(()))
    assert all(bool((p != b).all()) for p, b in zip(toy.student.parameters(), before, strict=True))
    assert (optimizer.skipped_steps, optimizer.skipped_in_a_row) == (2, 0)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("lr", 0.0),
        ("lr", math.nan),
        ("final_lr", -1e-9),
        ("final_lr", math.inf),
        ("warmup_epochs", -1.0),
        ("warmup_epochs", math.nan),
        ("betas", (0.9, 1.0)),
        ("weight_decay", -0.1),
        ("final_weight_decay", math.nan),
        ("clip_norm", 0.0),
        ("clip_norm", math.inf),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused(name, value):
    with pytest.raises(MidwayError, match=rf"optim\.{name} = .*; give"):
        OptimConfig(**{name: value})


def test_a_group_has_its_own_share_of_the_learning_rate():
    toy = Toy(p_dropout=0)
    first, last = [*toy.student.first.parameters()], [*toy.student.last.parameters()]
    groups = [
        ParameterGroup(name="first", parameters=first, lr_scale=0.25),
        ParameterGroup(name="last", parameters=last),
    ]
    optimizer = AdamW(toy, groups, OptimConfig())
    before = [p.detach().clone() for p in first + last]
    for parameter in first + last:
        parameter.grad = torch.ones_like(parameter)
    optimizer.set_rates(Rates(lr=0.1, weight_decay=0))
    optimizer.step_unless(torch.zeros(()))
    # The first step of Adam is as long as the rate, whatever the gradient.
    moved = [(old - new).mean().item() for old, new in zip(before, first + last, strict=True)]
    assert moved == pytest.approx([0.025, 0.025, 0.1, 0.1], rel=1e-4)


@pytest.mark.parametrize(("samples", "final"), [(256, 1e-5), (1024, 4e-5)])
def test_a_final_rate_scales_with_the_samples_of_a_step_where_the_recipe_says_so(samples, final):
    # VideoMAE's: 1.5e-4 at the peak and 1e-5 at the end, per 256 clips.
    optim = videomae_vits().optim
    end = Progress(step=999_999, steps=10**6, steps_per_epoch=1e-6, samples=samples)
    ends = [rates_at(end, c).lr for c in (optim, replace(optim, scale_final_lr=False))]
    assert ends == pytest.approx([final, 1e-5], rel=1e-4)


def test_a_scaled_final_rate_above_the_peak_is_refused_at_once_or_with_the_samples():
    with pytest.raises(MidwayError, match=r"final_lr = 0\.001: the rate would rise"):
        OptimConfig(lr=5e-4, final_lr=1e-3, scale_final_lr=True)
    config = OptimConfig(lr=1e-4, scale_lr=False, final_lr=5e-5, scale_final_lr=True)
    check_falling(config, 512)
    with pytest.raises(
        MidwayError, match=r"final_lr = 5e-05 \* samples / 256 = 0\.0002: .* lr = 0\.0001, the peak"
    ):
        check_falling(config, 1024)
