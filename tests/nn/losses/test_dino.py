import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from midway.nn.losses.dino import DinoHead, DinoPairLoss, crop_pairs


def _double_loop(loss: DinoPairLoss, student: Tensor, teacher: Tensor) -> Tensor:
    """The 72 terms one by one, as MODEL.md words them."""
    terms = []
    for q in range(len(teacher)):
        target = ((teacher[q] - loss.center) / 0.04).softmax(-1)
        for v in range(len(student)):
            if v == q or (v < 4 and abs(v - q) == 2):
                continue
            terms.append(-(target * F.log_softmax(student[v] / 0.1, dim=-1)).sum(-1).mean())
    assert len(terms) == 72
    return torch.stack(terms).mean()


def test_the_loss_and_its_gradient_equal_the_double_loop() -> None:
    loss = DinoPairLoss(50)
    loss.center.copy_(torch.randn(1, 50))
    student = torch.randn(20, 3, 50, requires_grad=True)
    teacher = torch.randn(4, 3, 50)
    ours, plain = loss(student, teacher), _double_loop(loss, student, teacher)
    torch.testing.assert_close(ours, plain)
    (found,) = torch.autograd.grad(ours, student)
    (wanted,) = torch.autograd.grad(plain, student)
    torch.testing.assert_close(found, wanted)


def test_pairs_of_one_window_are_left_out_in_both_frames() -> None:
    kept = crop_pairs(20, 4)
    assert kept.sum() == 72
    assert kept[4:].all()
    assert kept[:4].tolist() == [
        [False, True, False, True],
        [True, False, True, False],
        [False, True, False, True],
        [True, False, True, False],
    ]


def test_logits_without_information_cost_log_of_the_prototypes() -> None:
    loss = DinoPairLoss(64)(torch.zeros(20, 2, 64), torch.zeros(4, 2, 64))
    assert loss.item() == pytest.approx(math.log(64), rel=1e-5)


def test_the_centre_moves_by_a_tenth_towards_the_mean_of_raw_logits() -> None:
    loss = DinoPairLoss(6)
    loss.center.fill_(1.0)
    teacher = torch.randn(4, 3, 6)
    for half in teacher.split((1, 2), dim=1):
        loss.collect(half)
    loss.move_center()
    torch.testing.assert_close(loss.center[0], 0.9 + 0.1 * teacher.mean((0, 1)))


def test_a_step_that_is_not_finite_leaves_the_centre_alone() -> None:
    loss = DinoPairLoss(6)
    loss.collect(torch.full((4, 3, 6), float("nan")))
    loss.move_center()
    assert loss.center.tolist() == [[0.0] * 6]


def test_the_loss_is_computed_in_full_precision_under_autocast() -> None:
    loss = DinoPairLoss(50)
    student, teacher = torch.randn(20, 3, 50), torch.randn(4, 3, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss(student, teacher)
    torch.testing.assert_close(found, loss(student, teacher))


def test_logits_are_gains_times_cosines() -> None:
    head = DinoHead(8, hidden=16, bottleneck=4, num_prototypes=5)
    with torch.no_grad():
        head.last_layer.gain.mul_(2.5)
    x = torch.randn(3, 8)
    cosine = F.cosine_similarity(head.mlp(x)[:, None], head.last_layer.direction[None], dim=-1)
    torch.testing.assert_close(head(x), 2.5 * cosine)
