"""The invariance term: DINO's projection head, centring and the loss over crops of a pair."""

from contextlib import AbstractContextManager, nullcontext

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.nn.linear import Linear, linear
from midway.nn.ranks import mean_over_ranks


class Prototypes(nn.Module):
    """Weight-normalised linear layer: logit k is gain k times the cosine with direction k."""

    def __init__(self, dim: int, num_prototypes: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_prototypes, 1))
        self.direction = nn.Parameter(torch.empty(num_prototypes, dim))
        nn.init.trunc_normal_(self.direction, std=0.02)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch prototypes"]:
        """Logits of unit-length `x`."""
        # One factor a prototype, so that the large table is gone through once.
        length = torch.linalg.vector_norm(self.direction, dim=-1, keepdim=True)
        return linear(x, self.direction * (self.gain / length.clamp_min(1e-12)))


class DinoHead(nn.Module):
    """Three-layer projection to the unit sphere, then prototypes (DINO, section 3)."""

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
        """Logits of class tokens."""
        return self.last_layer(F.normalize(self.mlp(x), dim=-1))


class DinoPairLoss(nn.Module):
    """Cross-entropy between the teacher's global crops and the student's crops of a pair.

    The teacher's logits are centred by their running mean, which is the only state.

    Args:
        num_prototypes: Columns of the logits.
        student_temperature: Divides the student's logits.
        teacher_temperature: Divides the teacher's centred logits; lower is sharper.
        center_momentum: Share of the old centre kept at each update.

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
        """Mean of the terms that `crop_pairs` keeps; log(prototypes) when nothing is learnt.

        A term is the log-sum-exp of the student's logits less their mean under the teacher's
        target. Summed over terms, each crop needs one log-sum-exp and one mixture of targets, and
        the local crops, which meet every target, share theirs.

        Args:
            student: Raw logits: global crops in the order (1, 2 of source, 1, 2 of target),
                then local crops.
            teacher: Raw logits of the global crops in the same order.

        """
        num_globals, batch = teacher.shape[:2]
        kept = crop_pairs(len(student), num_globals).to(student.device, torch.float32)
        with _full_precision(student):
            targets = ((teacher.float() - self.center) / self.teacher_temperature).softmax(-1)
            logits = student.float() / self.student_temperature
            mixed = torch.tensordot(kept[:num_globals], targets, dims=1)
            agreement = (mixed * logits[:num_globals]).sum()
            agreement += (targets.sum(0) * logits[num_globals:].sum(0)).sum()
            spread = kept.sum(1) @ logits.logsumexp(-1).sum(1)
            return (spread - agreement) / (batch * kept.sum())

    @torch.no_grad()
    def collect(self, teacher: Float[Tensor, "globals batch prototypes"]) -> None:
        """Note the raw teacher logits of a micro-batch for the next move of the centre."""
        self.logit_sum += teacher.float().sum((0, 1))
        self.logit_count += teacher.shape[0] * teacher.shape[1]

    @torch.no_grad()
    def move_center(self) -> None:
        """Move the centre, once a step, towards the mean of the logits collected on all ranks.

        Logits that are not finite leave it alone: their step is skipped, the centre would stay.
        """
        mean = mean_over_ranks(self.logit_sum / self.logit_count)
        moved = torch.lerp(self.center, mean.unsqueeze(0), 1 - self.center_momentum)
        self.center.copy_(torch.where(moved.isfinite().all(), moved, self.center))
        self.logit_sum.zero_()
        self.logit_count.zero_()


def _full_precision(x: Tensor) -> AbstractContextManager[object]:
    # Operations are counted on the meta device, which has no autocast to switch off.
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def crop_pairs(num_crops: int, num_globals: int) -> Bool[Tensor, "crops globals"]:
    """Which (student crop, teacher crop) pairs enter the loss.

    Left out are a crop with itself and with the same window in the other frame, `num_globals` / 2
    places away: with 4 global and 16 local crops 72 of 80 pairs stay.
    """
    crop = torch.arange(num_crops).unsqueeze(1)
    apart = (crop - torch.arange(num_globals)).abs()
    return (crop >= num_globals) | ((apart != 0) & (apart != num_globals // 2))
