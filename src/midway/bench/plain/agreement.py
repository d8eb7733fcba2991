"""Comparison of our training step with the plain one: loss, and gradient of every parameter."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import inf, isnan

import torch
from torch import Tensor

from midway.bench.plain.network import Attend, attend_written_out
from midway.bench.plain.step import PlainStep
from midway.data.views.render import Clips
from midway.errors import MidwayError
from midway.methods.midway import Midway

LOSS_TOLERANCE = 1e-5
"""Largest relative difference of the loss in float32."""
GRADIENT_TOLERANCE = 1e-4
"""Largest relative difference of a parameter's gradient in float32."""
_LOSS_TOLERANCE_IN_BFLOAT16 = 1e-2
"""Largest relative error of the loss in bfloat16: 2.5 times the rounding error of one number."""
_SPREAD = 1.5
"""Largest ratio of our gradient error in a lower precision to that of the plain step."""

Gradients = dict[str, Tensor]
"""Gradients by name of the parameter."""


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """Relative deviations of a step from the plain step in float32."""

    loss_difference: float
    """Relative difference of the losses in float32."""
    gradient_difference: float
    """Largest relative difference (L2 norm) of a parameter's gradients in float32; infinite if one
    step has no gradient or one with NaN."""
    worst_parameter: str
    """Parameter with the largest difference."""
    loss_error: float | None = None
    """Relative error of our loss in the lower precision; None if the step is in float32."""
    plain_loss_error: float | None = None
    gradient_error: float | None = None
    """Relative error of our gradient in the lower precision, all parameters as one vector."""
    plain_gradient_error: float | None = None

    def check(self) -> None:
        """Raise an error if the steps disagree.

        Raises:
            MidwayError: A difference exceeds the expected rounding error.
        """
        # Written as "all below a bound", so that NaN counts as a disagreement.
        same = (
            self.loss_difference <= LOSS_TOLERANCE
            and self.gradient_difference <= GRADIENT_TOLERANCE
        )
        if self.gradient_error is not None and self.plain_gradient_error is not None:
            same = same and self.gradient_error <= _SPREAD * self.plain_gradient_error < inf
        for error in (self.loss_error, self.plain_loss_error):
            same = same and (error is None or error <= _LOSS_TOLERANCE_IN_BFLOAT16)
        if not same:
            raise MidwayError(
                f"our step and the plain one disagree: {self}, so their times are not comparable; "
                "please report it"
            )


def compare(
    method: Midway,
    clips: Clips,
    autocast_type: torch.dtype | None,
    attend: Attend = attend_written_out,
) -> Agreement:
    """Compare loss and gradients of both steps on the same views and weights, without drop path.

    Args:
        method: The method with its weights; gradients are cleared.
        clips: A batch; small, because up to four steps are computed.
        autocast_type: Lower precision to compare in addition to float32, or None.
        attend: Attention of the plain step.
    """
    with _without_drop_path(method):
        loss, gradients = _gradients(method, _ours(method, clips, None))
        wanted, reference = _gradients(method, _plain(method, clips, None, attend))
        names = sorted(gradients.keys() | reference.keys())
        differences = {name: _apart(gradients, reference, [name]) for name in names}
        worst = max(differences, key=lambda name: differences[name])
        float32 = {
            "loss_difference": abs(loss - wanted) / abs(wanted),
            "gradient_difference": differences[worst],
        }
        if autocast_type is None:
            return Agreement(**float32, worst_parameter=worst)
        loss, gradients = _gradients(method, _ours(method, clips, autocast_type))
        error = _apart(gradients, reference, names)
        plain = _plain(method, clips, autocast_type, attend)
        plain_loss, gradients = _gradients(method, plain)
        return Agreement(
            **float32,
            worst_parameter=worst,
            loss_error=abs(loss - wanted) / abs(wanted),
            plain_loss_error=abs(plain_loss - wanted) / abs(wanted),
            gradient_error=error,
            plain_gradient_error=_apart(gradients, reference, names),
        )


def _ours(method: Midway, clips: Clips, dtype: torch.dtype | None) -> Callable[[], Tensor]:
    def loss() -> Tensor:
        with torch.autocast(clips.seconds.device.type, dtype=dtype, enabled=dtype is not None):
            return method.loss(clips).loss

    return loss


def _plain(
    method: Midway, clips: Clips, dtype: torch.dtype | None, attend: Attend
) -> Callable[[], Tensor]:
    plain = PlainStep(method, lr=0.0, clip_norm=1.0, autocast_type=dtype, attend=attend)
    return lambda: plain.loss(clips)


def _gradients(method: Midway, loss: Callable[[], Tensor]) -> tuple[float, Gradients]:
    value = loss()
    value.backward()
    found = {
        name: parameter.grad
        for name, parameter in method.named_parameters()
        if parameter.grad is not None
    }
    method.zero_grad(set_to_none=True)
    method.network.dino_loss.logit_sum.zero_()
    method.network.dino_loss.logit_count.zero_()
    return value.item(), found


def _apart(found: Gradients, reference: Gradients, names: list[str]) -> float:
    """Return the relative L2 difference of gradients, concatenated to one vector."""
    if any(name not in found or name not in reference for name in names):
        return inf
    difference = torch.stack([(found[name] - reference[name]).norm() for name in names]).norm()
    length = torch.stack([reference[name].norm() for name in names]).norm()
    apart = (difference / length).item()
    return inf if isnan(apart) else apart


@contextmanager
def _without_drop_path(method: Midway) -> Iterator[None]:
    encoder = method.network.encoder
    mode = encoder.training
    encoder.eval()
    try:
        yield
    finally:
        encoder.train(mode)
