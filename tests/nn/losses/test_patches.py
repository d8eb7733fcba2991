import math

import pytest
import torch

from midway.nn.losses.dino import TargetsConfig, TeacherTargets
from midway.nn.losses.patches import masked_patch_loss
from tests.lightly_files import lightly_file


def test_the_loss_and_its_gradient_are_those_of_lightly(monkeypatch: pytest.MonkeyPatch) -> None:
    lightly_file("models.modules.center", monkeypatch)
    theirs = lightly_file("loss.ibot_loss", monkeypatch).IBOTPatchLoss(40, teacher_temp=0.05)
    targets = TeacherTargets(40, TargetsConfig(teacher_temperature=0.05))
    centre = torch.randn(1, 40)
    targets.center.copy_(centre)
    theirs.center.center.copy_(centre)
    torch.manual_seed(0)
    student = torch.randn(5, 12, 40, requires_grad=True)
    teacher = torch.randn(5, 12, 40)
    mask = torch.rand(5, 12) < 0.4
    mask[2] = False  # an image without masked patches
    ours = masked_patch_loss(student, targets(teacher), mask, temperature=0.1)
    wanted = theirs(teacher[mask], student[mask], mask.view(5, 3, 4))
    torch.testing.assert_close(ours, wanted)
    found, gradient = (torch.autograd.grad(loss, student)[0] for loss in (ours, wanted))
    torch.testing.assert_close(found, gradient)
    assert not found[~mask].any()


def test_logits_without_information_cost_log_of_the_prototypes() -> None:
    mask = torch.tensor([[True, False, True]])
    targets = torch.full((1, 3, 64), 1 / 64)
    loss = masked_patch_loss(torch.zeros(1, 3, 64), targets, mask, temperature=0.1)
    assert loss.item() == pytest.approx(math.log(64), rel=1e-5)


def test_images_without_masks_count_as_zero() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    targets = torch.full((2, 2, 64), 1 / 64)
    loss = masked_patch_loss(torch.zeros(2, 2, 64), targets, mask, temperature=0.1)
    assert loss.item() == pytest.approx(math.log(64) / 2, rel=1e-5)
    assert masked_patch_loss(targets, targets, mask & False, temperature=0.1) == 0


def test_the_loss_is_computed_in_full_precision_under_autocast() -> None:
    student, targets = torch.randn(2, 3, 50), torch.randn(2, 3, 50).softmax(-1)
    mask = torch.ones(2, 3, dtype=torch.bool)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = masked_patch_loss(student, targets, mask, temperature=0.1)
    torch.testing.assert_close(found, masked_patch_loss(student, targets, mask, temperature=0.1))
