"""Invariance term: DINO's projection head, centring, and the loss over the crops of a pair."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.nn.device import mean_over_ranks
from midway.nn.linear import Linear, linear


class Prototypes(nn.Module):
    """Weight-normalised linear layer: logit k is gain k times the cosine to direction k."""

    def __init__(self, dim: int, num_prototypes: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_prototypes, 1))
        self.direction = nn.Parameter(torch.empty(num_prototypes, dim))
        nn.init.trunc_normal_(self.direction, std=0.02)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch prototypes"]:
        """Return the logits of unit-length `x`."""
        # One factor per prototype, so that the large table is multiplied only once.
        length = torch.linalg.vector_norm(self.direction, dim=-1, keepdim=True)
        return linear(x, self.direction * (self.gain / length.clamp_min(1e-12)))


class DinoHead(nn.Module):
    """Projection head of DINO: three-layer MLP, unit length, then prototypes."""

    def __init__(self, dim: int, *, hidden: int, bottleneck: int, num_prototypes: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            Linear(dim, hidden),
            nn.GELU(),
            Linear(hidden, hidden),
            nn.GELU(),
            Linear(hidden, bottleneck),
        )
        self.last_layer = Prototypes(bottleneck, num_prototypes)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch prototypes"]:
        """Return the logits of class tokens."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class DinoPairLoss(nn.Module):
    """Cross-entropy between the teacher's global crops and the student's crops of a pair.

    The teacher's logits are centred by their running mean, the only persistent state.

    Args:
        num_prototypes: Number of logits.
        student_temperature: Temperature of the student's softmax.
        teacher_temperature: Temperature of the teacher's softmax; lower is sharper.
        center_momentum: EMA momentum of the centre.

    """

    center: Tensor
    logit_sum: Tensor
    logit_count: Tensor

    def __init__(
        self,
        num_prototypes: int,
        *,
        student_temperature: float = 0.1,
        teacher_temperature: float = 0.04,
        center_momentum: float = 0.9,
    ) -> None:
        super().__init__()
        self.student_temperature = student_temperature
        self.teacher_temperature = teacher_temperature
        self.center_momentum = center_momentum
        self.register_buffer("center", torch.zeros(1, num_prototypes))
        self.register_buffer("logit_sum", torch.zeros(num_prototypes), persistent=False)
        self.register_buffer("logit_count", torch.zeros(()), persistent=False)

    def forward(
        self,
        student: Float[Tensor, "crops batch prototypes"],
        teacher: Float[Tensor, "globals batch prototypes"],
    ) -> Float[Tensor, ""]:
        """Return the mean of the terms that `crop_pairs` keeps; log(prototypes) if untrained.

        Args:
            student: Raw logits: global crops in the order (1, 2 of source, 1, 2 of target),
                then local crops.
            teacher: Raw logits of the global crops in the same order.

        """
        num_globals, batch = teacher.shape[:2]
        # A term is H(p, q) = logsumexp(s) - p . s, for the teacher's target p and the student's
        # scaled logits s. Summed over the terms, each crop needs one log-sum-exp and one mixture
        # of targets, instead of one log-softmax per term (72 in the paper).
        kept = crop_pairs(len(student), num_globals).to(student.device, torch.float32)
        with _full_precision(student):
            targets = ((teacher.float() - self.center) / self.teacher_temperature).softmax(-1)
            logits = student.float() / self.student_temperature
            # (globals, globals) x (globals, batch, prototypes): each global crop has its mixture.
            mixed = torch.tensordot(kept[:num_globals], targets, dims=1)
            agreement = (mixed * logits[:num_globals]).sum()
            # Local crops meet all targets, so they share one mixture: the sum.
            agreement += (targets.sum(0) * logits[num_globals:].sum(0)).sum()
            normaliser = kept.sum(1) @ logits.logsumexp(-1).sum(1)  # (crops,) . (crops,)
            return (normaliser - agreement) / (batch * kept.sum())

    @torch.no_grad()
    def collect(self, teacher: Float[Tensor, "globals batch prototypes"]) -> None:
        """Add the raw teacher logits of a micro-batch to the next update of the centre."""
        self.logit_sum += teacher.float().sum((0, 1))
        self.logit_count += teacher.shape[0] * teacher.shape[1]

    @torch.no_grad()
    def move_center(self) -> None:
        """Update the centre, once per step, by the mean of the collected logits of all ranks."""
        mean = mean_over_ranks(self.logit_sum / self.logit_count)
        moved = torch.lerp(self.center, mean.unsqueeze(0), 1 - self.center_momentum)
        # The step of logits that are not finite is skipped, but NaN would stay in the centre.
        self.center.copy_(torch.where(moved.isfinite().all(), moved, self.center))
        self.logit_sum.zero_()
        self.logit_count.zero_()


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    # FLOPs are counted on the meta device, which has no autocast to disable.
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def crop_pairs(num_crops: int, num_globals: int) -> Bool[Tensor, "crops globals"]:
    """Return the mask of the (student crop, teacher crop) pairs that enter the loss.

    Excluded are a crop with itself, and with the same window in the other frame, `num_globals` / 2
    places away. With 4 global and 16 local crops, 72 of 80 pairs remain.
    """
    crop = torch.arange(num_crops).unsqueeze(1)
    apart = (crop - torch.arange(num_globals)).abs()
    return (crop >= num_globals) | ((apart != 0) & (apart != num_globals // 2))
