import math
import sys
from functools import partial
from types import ModuleType

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.nn.losses.dino import (
    DinoHead,
    TargetsConfig,
    TeacherTargets,
    crop_pairs,
    multi_crop_loss,
)
from tests.lightly_files import lightly_file

pair_loss = partial(multi_crop_loss, temperature=0.1, num_frames=2)
TERMS = [(2, "same_and_cross", 72), (2, "cross", 40), (1, "same_and_cross", 18)]


def _is_term(v: int, q: int, frames: int, terms: str) -> bool:
    """As MODEL.md and BASELINES.md word it; 2 global, then 8 local crops of each frame."""
    is_global = v < 2 * frames
    frame = v // 2 if is_global else (v - 2 * frames) // 8
    if terms == "cross":
        return frame != q // 2
    return not (is_global and v % 2 == q % 2)


def _double_loop(student: Tensor, targets: Tensor, frames: int, terms: str) -> tuple[Tensor, int]:
    found = []
    for q in range(len(targets)):
        for v in range(len(student)):
            if _is_term(v, q, frames, terms):
                log_student = F.log_softmax(student[v] / 0.1, dim=-1)
                found.append(-(targets[q] * log_student).sum(-1).mean())
    return torch.stack(found).mean(), len(found)


@pytest.mark.parametrize(("frames", "terms", "count"), TERMS)
def test_the_loss_and_its_gradient_equal_the_double_loop(
    frames: int, terms: str, count: int
) -> None:
    targets = TeacherTargets(50)
    targets.center.copy_(torch.randn(1, 50))
    student = torch.randn(10 * frames, 3, 50, requires_grad=True)
    teacher = torch.randn(2 * frames, 3, 50)
    ours = multi_crop_loss(
        student, targets(teacher), temperature=0.1, num_frames=frames, terms=terms
    )
    by_hand = ((teacher - targets.center) / 0.04).softmax(-1)
    plain, number = _double_loop(student, by_hand, frames, terms)
    assert number == count
    torch.testing.assert_close(ours, plain)
    (found,) = torch.autograd.grad(ours, student)
    (wanted,) = torch.autograd.grad(plain, student)
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("centring", ["zero", "moved"])
def test_loss_gradient_and_centre_of_one_frame_are_those_of_lightly(
    centring: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = ModuleType("lightly.models.modules")
    package.center = lightly_file("models.modules.center", monkeypatch)
    monkeypatch.setitem(sys.modules, package.__name__, package)
    dino_loss = lightly_file("loss.dino_loss", monkeypatch).DINOLoss
    theirs = dino_loss(40, 0.03, 0.06, warmup_teacher_temp_epochs=5, center_momentum=0.8)
    config = TargetsConfig(
        initial_teacher_temperature=0.03,
        teacher_temperature=0.06,
        # Its schedule, of one value per epoch, contains both ends.
        temperature_warmup_epochs=4,
        center_momentum=0.8,
    )
    targets = TeacherTargets(40, config)
    targets.set_temperature(epoch=3.0)
    if centring == "moved":
        targets.center.normal_()
        theirs.center.copy_(targets.center[None])
    student = torch.randn(10, 3, 40, requires_grad=True)
    teacher = torch.randn(2, 3, 40)
    ours = multi_crop_loss(student, targets(teacher), temperature=0.1, num_frames=1)
    reference = theirs([*teacher], [*student], epoch=3)
    torch.testing.assert_close(ours, reference)
    gradients = [torch.autograd.grad(loss, student)[0] for loss in (ours, reference)]
    torch.testing.assert_close(*gradients)
    targets.collect(teacher)
    targets.move_center()
    torch.testing.assert_close(targets.center, theirs.center[0])


@pytest.mark.parametrize(("frames", "terms", "count"), TERMS)
def test_the_loss_needs_no_local_crops(frames: int, terms: str, count: int) -> None:
    student, teacher = torch.randn(2 * frames, 3, 9), torch.randn(2 * frames, 3, 9).softmax(-1)
    loss = multi_crop_loss(student, teacher, temperature=0.1, num_frames=frames, terms=terms)
    torch.testing.assert_close(loss, _double_loop(student, teacher, frames, terms)[0])
    assert crop_pairs(10 * frames, 2 * frames, frames, terms).sum() == count


def test_pairs_of_one_window_are_left_out_in_both_frames() -> None:
    kept = crop_pairs(20, 4, 2)
    assert kept.sum() == 72
    assert kept[4:].all()
    assert kept[:4].tolist() == [
        [False, True, False, True],
        [True, False, True, False],
        [False, True, False, True],
        [True, False, True, False],
    ]


def test_logits_without_information_cost_log_of_the_prototypes() -> None:
    loss = pair_loss(torch.zeros(20, 2, 64), TeacherTargets(64)(torch.zeros(4, 2, 64)))
    assert loss.item() == pytest.approx(math.log(64), rel=1e-5)


def test_the_centre_moves_by_a_tenth_towards_the_mean_of_raw_logits() -> None:
    targets = TeacherTargets(6)
    targets.center.fill_(1.0)
    teacher = torch.randn(4, 3, 6)
    for half in teacher.split((1, 2), dim=1):
        targets.collect(half)
    targets.move_center()
    torch.testing.assert_close(targets.center[0], 0.9 + 0.1 * teacher.mean((0, 1)))


def test_the_centre_moves_at_its_own_momentum_and_starts_from_the_first_batch_if_asked() -> None:
    config = TargetsConfig(center_momentum=0.75, center_start="first_batch")
    targets = TeacherTargets(6, config)
    first, second = torch.randn(2, 4, 3, 6)
    mean = first.mean((0, 1))
    torch.testing.assert_close(targets(first), ((first - mean) / 0.04).softmax(-1))
    for batch in (first, second):
        targets.collect(batch)
        targets.move_center()
    torch.testing.assert_close(targets.center[0], 0.75 * mean + 0.25 * second.mean((0, 1)))
    # The centre is no longer that of the batch.
    torch.testing.assert_close(targets(first), ((first - targets.center) / 0.04).softmax(-1))


def test_the_teacher_warms_up_linearly_and_the_student_keeps_its_temperature() -> None:
    config = TargetsConfig(teacher_temperature=0.07, temperature_warmup_epochs=30)
    targets = TeacherTargets(6, config)
    found = []
    for epoch in (0.0, 15.0, 30.0, 100.0):
        targets.set_temperature(epoch)
        found.append(targets.temperature)
    assert found == pytest.approx([0.04, 0.055, 0.07, 0.07])
    logits = torch.randn(4, 3, 6)
    torch.testing.assert_close(targets(logits), (logits / 0.07).softmax(-1))


def test_sinkhorn_targets_share_the_prototypes_out_among_all_crops() -> None:
    targets = TeacherTargets(3, TargetsConfig(centring="sinkhorn", teacher_temperature=0.5))
    # One prototype leads everywhere, so that a softmax would give it to all crops.
    logits = torch.randn(4, 6, 3) * 0.2 + torch.tensor([2.0, 0.0, 0.0])
    found = targets(logits)
    kernel = (logits / 0.5).exp().flatten(0, 1)
    for _ in range(3):
        kernel = kernel / kernel.sum(0)
        kernel = kernel / kernel.sum(1, keepdim=True)
    torch.testing.assert_close(found, kernel.view_as(logits))
    assert found.mean((0, 1)).tolist() == pytest.approx([1 / 3] * 3, abs=0.02)


def test_targets_have_no_gradient_and_any_number_of_leading_axes() -> None:
    targets = TeacherTargets(6)
    logits = torch.randn(5, 6, requires_grad=True)
    assert not targets(logits).requires_grad
    targets.collect(logits)
    assert targets.logit_count == 5
    torch.testing.assert_close(targets.logit_sum, logits.detach().sum(0))


@pytest.mark.parametrize(
    "change",
    [
        {"student_temperature": 0.0},
        {"teacher_temperature": -0.1},
        {"initial_teacher_temperature": math.nan},
        {"temperature_warmup_epochs": -1.0},
        {"center_momentum": 1.0},
    ],
)
def test_a_setting_out_of_range_is_refused(change: dict) -> None:
    with pytest.raises(MidwayError, match=rf"targets\.{next(iter(change))} = .*; give "):
        TargetsConfig(**change)


@pytest.mark.parametrize("start", ["zero", "first_batch"])
def test_a_step_that_is_not_finite_leaves_the_centre_alone(start: str) -> None:
    targets = TeacherTargets(6, TargetsConfig(center_start=start))
    targets.collect(torch.full((4, 3, 6), float("nan")))
    targets.move_center()
    assert targets.center.tolist() == [[0.0] * 6]


def test_the_loss_is_computed_in_full_precision_under_autocast() -> None:
    targets = TeacherTargets(50)
    student, teacher = torch.randn(20, 3, 50), torch.randn(4, 3, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = pair_loss(student, targets(teacher))
    torch.testing.assert_close(found, pair_loss(student, targets(teacher)))


def test_logits_are_gains_times_cosines() -> None:
    head = DinoHead(8, hidden=16, bottleneck=4, num_prototypes=5)
    with torch.no_grad():
        head.last_layer.gain.mul_(2.5)
    x = torch.randn(3, 8)
    cosine = F.cosine_similarity(head.mlp(x)[:, None], head.last_layer.direction[None], dim=-1)
    torch.testing.assert_close(head(x), 2.5 * cosine)
    torch.testing.assert_close(head.project(x), F.normalize(head.mlp(x), dim=1))


@pytest.mark.parametrize(("init", "norm"), [("trunc_normal", 0.32), ("uniform", 0.58)])
def test_prototype_directions_start_at_the_lengths_of_the_sheet(init: str, norm: float) -> None:
    head = DinoHead(8, hidden=16, bottleneck=256, num_prototypes=500, prototype_init=init)
    directions = head.last_layer.direction
    assert directions.norm(dim=1).mean().item() == pytest.approx(norm, abs=0.01)
    if init == "uniform":
        assert directions.abs().max() <= 1 / 16
