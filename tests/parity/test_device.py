"""On an accelerator the objective has the numbers of the CPU, and those of the plain step.

`MIDWAY_DEVICE` names the device: "cuda" if it is not set, "cpu" to try the test itself.
"""

import copy
import os

import pytest
import torch
from torch import Tensor

from midway.bench.plain.agreement import GRADIENT_TOLERANCE, LOSS_TOLERANCE, compare
from midway.data.views.render import Clips, example_clips
from midway.experiments.synthetic import BOTH_TERMS
from midway.methods.midway import Midway

DEVICE = torch.device(os.environ.get("MIDWAY_DEVICE", "cuda"))

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(
        DEVICE.type == "cuda" and not torch.cuda.is_available(), reason="no GPU that torch can use"
    ),
]


@pytest.fixture
def method() -> Midway:
    torch.manual_seed(0)
    return Midway(BOTH_TERMS)


@pytest.fixture
def clips(method: Midway) -> Clips:
    return example_clips(method.spec, 4)


def _moved(clips: Clips) -> Clips:
    views = {name: view.to(DEVICE) for name, view in clips.views.items()}
    return Clips(views=views, seconds=clips.seconds.to(DEVICE), signals={})


def _gradients(method: Midway, clips: Clips) -> tuple[Tensor, dict[str, Tensor]]:
    loss = method.loss(clips).loss
    loss.backward()
    found = {n: p.grad for n, p in method.named_parameters() if p.grad is not None}
    return loss.detach(), found


def test_loss_and_gradients_are_those_of_the_cpu(method: Midway, clips: Clips) -> None:
    there = copy.deepcopy(method).to(DEVICE)
    wanted_loss, wanted = _gradients(method, clips)
    found_loss, found = _gradients(there, _moved(clips))
    torch.testing.assert_close(found_loss.cpu(), wanted_loss, rtol=1e-5, atol=0)
    for name, gradient in wanted.items():
        assert (found[name].cpu() - gradient).norm() <= 1e-4 * gradient.norm() + 1e-9, name


@pytest.mark.parametrize("dtype", [None, torch.bfloat16])
def test_our_step_and_the_plain_one_agree_there(
    method: Midway, clips: Clips, dtype: torch.dtype | None
) -> None:
    agreement = compare(method.to(DEVICE), _moved(clips), dtype)
    assert agreement.loss_difference <= LOSS_TOLERANCE
    assert agreement.gradient_difference <= GRADIENT_TOLERANCE
    agreement.check()  # in bfloat16, beside the plain step's own error
