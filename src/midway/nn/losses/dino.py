"""DINO's loss: projection head, targets of the teacher, and cross-entropy between crops."""

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import inf
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.config import require
from midway.nn.device import mean_over_ranks
from midway.nn.linear import Linear, linear
from midway.nn.losses.sinkhorn import sinkhorn_knopp

PrototypeInit = Literal["trunc_normal", "uniform"]
Terms = Literal["same_and_cross", "cross"]


@dataclass(frozen=True, kw_only=True)
class TargetsConfig:
    """Temperatures and centring of DINO's targets; the defaults are those of the release."""

    student_temperature: float = 0.1
    """Temperature of the student's softmax."""
    teacher_temperature: float = 0.04
    """Temperature of the teacher's softmax after its warm-up; lower is sharper."""
    initial_teacher_temperature: float = 0.04
    """Temperature of the teacher's softmax at the start of its warm-up."""
    temperature_warmup_epochs: float = 0.0
    """Epochs over which the teacher's temperature changes linearly; DINO's longer recipe goes from
    0.04 to 0.07 in 30."""
    centring: Literal["mean", "sinkhorn"] = "mean"
    """Subtract a running mean of the logits, or share the prototypes out equally among the crops of
    the step (Sinkhorn-Knopp, as in DINOv2), without any memory."""
    center_momentum: float = 0.9
    """EMA momentum of the centre of the teacher's logits, per step."""
    center_start: Literal["zero", "first_batch"] = "zero"
    """Initial centre: 0, or the mean logits of the first batch."""

    def __post_init__(self) -> None:
        rules = {
            f"center_momentum = {self.center_momentum}; give 0 to below 1": (
                0 <= self.center_momentum < 1
            ),
            f"temperature_warmup_epochs = {self.temperature_warmup_epochs}; give 0 or more": (
                0 <= self.temperature_warmup_epochs < inf
            ),
        }
        for name in ("student", "teacher", "initial_teacher"):
            value = getattr(self, f"{name}_temperature")
            rules[f"{name}_temperature = {value}; give a number above 0"] = 0 < value < inf
        require("targets", rules)


DEFAULT_TARGETS = TargetsConfig()
SINKHORN_ROUNDS = 3
"""Rounds of Sinkhorn-Knopp, as in SwAV and DINOv2."""


class Prototypes(nn.Module):
    """Weight-normalised linear layer: logit k is gain k times the cosine to direction k."""

    def __init__(self, dim: int, num_prototypes: int, init: PrototypeInit = "trunc_normal") -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(num_prototypes, 1))
        self.direction = nn.Parameter(torch.empty(num_prototypes, dim))
        # The length of a direction has no effect on the logits, but on the angle by which an equal
        # step turns it: 1.8 times as far from 0.02 as from U(-1/16, 1/16), at 256 dimensions.
        if init == "uniform":
            nn.init.uniform_(self.direction, -(dim**-0.5), dim**-0.5)
        else:
            nn.init.trunc_normal_(self.direction, std=0.02)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch prototypes"]:
        """Return the logits of unit-length `x`."""
        # One factor per prototype, so that the large table is multiplied only once.
        length = torch.linalg.vector_norm(self.direction, dim=-1, keepdim=True)
        return linear(x, self.direction * (self.gain / length.clamp_min(1e-12)))


class DinoHead(nn.Module):
    """Projection head of DINO: three-layer MLP, unit length, then prototypes.

    Args:
        dim: Width of the class token.
        hidden: Width of the hidden layers.
        bottleneck: Dimensions of the unit vectors.
        num_prototypes: Number of logits.
        prototype_init: Initial prototype directions: truncated normal (std 0.02), or
            uniform up to 1 / sqrt(bottleneck), which is torch's default and DINO's.

    """

    def __init__(
        self,
        dim: int,
        *,
        hidden: int,
        bottleneck: int,
        num_prototypes: int,
        prototype_init: PrototypeInit = "trunc_normal",
    ) -> None:
        super().__init__()
        self.mlp = nn.Sequential(
            Linear(dim, hidden),
            nn.GELU(),
            Linear(hidden, hidden),
            nn.GELU(),
            Linear(hidden, bottleneck),
        )
        self.last_layer = Prototypes(bottleneck, num_prototypes, prototype_init)

    def forward(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch prototypes"]:
        """Return the logits of class tokens."""
        return self.last_layer(self.project(x))

    def project(self, x: Float[Tensor, "*batch dim"]) -> Float[Tensor, "*batch bottleneck"]:
        """Return the unit vectors that the prototypes see."""
        return F.normalize(self.mlp(x), dim=-1)


class TeacherTargets(nn.Module):
    """Targets of the student: the teacher's logits, centred and sharpened.

    The centre, the running mean of the logits, is the only persistent state. The logits of
    a step move the centre only afterwards: `collect` them, and call `move_center` after the step.

    Args:
        num_prototypes: Number of logits.
        config: Temperatures and centring.

    """

    center: Tensor
    logit_sum: Tensor
    logit_count: Tensor
    temperature: float
    """Temperature of the teacher at this step."""

    def __init__(self, num_prototypes: int, config: TargetsConfig = DEFAULT_TARGETS) -> None:
        super().__init__()
        self.config = config
        self.set_temperature(epoch=0.0)
        self.register_buffer("center", torch.zeros(1, num_prototypes))
        self.register_buffer("logit_sum", torch.zeros(num_prototypes), persistent=False)
        self.register_buffer("logit_count", torch.zeros(()), persistent=False)

    def set_temperature(self, epoch: float) -> None:
        """Set the teacher's temperature, before each step.

        Args:
            epoch: Completed passes over the data, as a fractional number.

        """
        config, warmup = self.config, self.config.temperature_warmup_epochs
        share = min(epoch / warmup, 1.0) if warmup else 1.0
        start, end = config.initial_teacher_temperature, config.teacher_temperature
        self.temperature = (1 - share) * start + share * end

    @torch.no_grad()
    def forward(
        self, logits: Float[Tensor, "*crops batch prototypes"]
    ) -> Float[Tensor, "*crops batch prototypes"]:
        """Return the target probabilities for raw teacher logits, in float32 and detached."""
        with full_precision(logits):
            logits = logits.float()
            if self.config.centring == "mean":
                return ((logits - self._center_for(logits)) / self.temperature).softmax(-1)
            # All crops of all ranks together are the samples.
            samples = logits.flatten(0, -2) / self.temperature
            shares = sinkhorn_knopp(samples, rounds=SINKHORN_ROUNDS, across_ranks=True)
            return shares.view_as(logits)

    @torch.no_grad()
    def collect(self, logits: Float[Tensor, "*crops batch prototypes"]) -> None:
        """Add the raw teacher logits of a micro-batch to the next update of the centre."""
        self.logit_sum += logits.float().sum(tuple(range(logits.ndim - 1)))
        self.logit_count += logits.numel() // logits.shape[-1]

    @torch.no_grad()
    def move_center(self) -> None:
        """Update the centre, once per step, by the mean of the collected logits of all ranks.

        Without any, it stays.
        """
        mean = mean_over_ranks(self.logit_sum / self.logit_count).unsqueeze(0)
        moved = torch.lerp(self.center, mean, 1 - self.config.center_momentum)
        if self.config.center_start == "first_batch":
            moved = torch.where(self.center.any(), moved, mean)
        # The step of logits that are not finite is skipped, but NaN would stay in the centre.
        self.center.copy_(torch.where(moved.isfinite().all(), moved, self.center))
        self.logit_sum.zero_()
        self.logit_count.zero_()

    def _center_for(self, logits: Tensor) -> Tensor:
        if self.config.center_start == "zero":
            return self.center
        # A centre of zeros has not moved yet: no flag has to survive a resume.
        mean = mean_over_ranks(logits.mean(tuple(range(logits.ndim - 1))))
        return torch.where(self.center.any(), self.center, mean)


def multi_crop_loss(
    student: Float[Tensor, "crops batch prototypes"],
    targets: Float[Tensor, "globals batch prototypes"],
    *,
    temperature: float,
    num_frames: int,
    terms: Terms = "same_and_cross",
) -> Float[Tensor, ""]:
    """Return the mean cross-entropy of the terms in `crop_pairs`; log(prototypes) if untrained.

    Args:
        student: Raw logits: global crops, frame by frame, then local crops, frame by frame.
        targets: Probabilities of the global crops in the same order, from `TeacherTargets`.
        temperature: Temperature of the student's softmax.
        num_frames: Number of frames, with equal numbers of crops.
        terms: Pairs of crops that are compared.

    """
    num_globals, batch = targets.shape[:2]
    # A term is H(p, q) = logsumexp(s) - p . s, for the teacher's target p and the student's scaled
    # logits s. Summed over the terms, each crop needs one log-sum-exp and one mixture of targets,
    # instead of one log-softmax per term (72 in the paper).
    kept = crop_pairs(len(student), num_globals, num_frames, terms)
    kept = kept.to(student.device, torch.float32)
    with full_precision(student):
        logits = student.float() / temperature
        # (globals, globals) x (globals, batch, prototypes): each global crop has its mixture.
        mixed = torch.tensordot(kept[:num_globals], targets, dims=1)
        agreement = (mixed * logits[:num_globals]).sum()
        # Local crops that meet the same targets share one mixture: the sum.
        mixtures = [targets.sum(0)]
        if terms == "cross":
            mixtures = [mixtures[0] - own.sum(0) for own in targets.chunk(num_frames)]
        shares = logits[num_globals:].chunk(len(mixtures))
        for mixture, crops in zip(mixtures, shares, strict=True):
            agreement += (mixture * crops.sum(0)).sum()
        normaliser = kept.sum(1) @ logits.logsumexp(-1).sum(1)  # (crops,) . (crops,)
        return (normaliser - agreement) / (batch * kept.sum())


def full_precision(x: Tensor) -> AbstractContextManager[object]:
    """Disable autocast on the device of `x`."""
    # FLOPs are counted on the meta device, which has no autocast to disable.
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def crop_pairs(
    num_crops: int, num_globals: int, num_frames: int, terms: Terms = "same_and_cross"
) -> Bool[Tensor, "crops globals"]:
    """Return the mask of the (student crop, teacher crop) pairs that enter the loss.

    With "same_and_cross", a crop meets all global crops but itself and the same window in another
    frame: 72 of 80 pairs for 2 frames with 2 global and 8 local crops, 18 of 20 for one frame. With
    "cross", it meets those of the other frames: 40 of 80 pairs.
    """
    per_frame, local_per_frame = num_globals // num_frames, (num_crops - num_globals) // num_frames
    if terms == "cross":
        frames = torch.arange(num_frames)
        own = torch.cat([frames.repeat_interleave(n) for n in (per_frame, local_per_frame)])
        return own.unsqueeze(1) != own[:num_globals]
    crop = torch.arange(num_crops).unsqueeze(1)
    # Windows are the same `per_frame` places apart.
    return (crop >= num_globals) | ((crop - torch.arange(num_globals)) % per_frame != 0)
