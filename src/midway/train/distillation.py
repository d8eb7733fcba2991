"""Self-distillation as in DINO: the teacher's schedule, the invariance term and its health."""

from dataclasses import dataclass, field
from math import inf, log
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from midway.config import require
from midway.data.views.render import Clips
from midway.models.dino import DinoPair
from midway.nn.losses.dino import TargetsConfig, Terms, crop_pairs, full_precision, multi_crop_loss
from midway.train.health import spread
from midway.train.objective import Progress
from midway.train.schedules import cosine

HEALTH_SAMPLES = 32
"""Largest number of samples of a batch for health metrics."""
CropLogits = Float[Tensor, "crops batch prototypes"]


@dataclass(frozen=True, kw_only=True)
class TeacherConfig:
    """Targets and schedule of an EMA teacher; a base of the configurations of methods."""

    targets: TargetsConfig = field(default_factory=TargetsConfig)
    teacher_momentum: float = 0.996
    """EMA momentum at the start; rises along a cosine."""
    final_teacher_momentum: float = 1.0
    """EMA momentum at the end of the cosine."""
    head_momentum: float | Literal["as_encoder"] = "as_encoder"
    """EMA momentum of the teacher's head at the start, if not that of its encoder; it ends at the
    same value. A head that follows slowly keeps the targets from changing together with it."""
    momentum_clock: Literal["steps", "samples"] = "samples"
    """Unit of the length of the momentum's cosine, which advances once per step. The run covers all
    of it with "steps", as in the paper, and 1 / batch with "samples", as in the release."""
    frozen_last_layer_epochs: float = 1.0
    """Epochs during which the prototype layer is frozen."""

    def __post_init__(self) -> None:
        names = ["teacher_momentum", "final_teacher_momentum"]
        for name in names + ["head_momentum"] * (self.head_momentum != "as_encoder"):
            value = getattr(self, name)
            require("method", {f"{name} = {value}; give 0 to 1": 0 <= value <= 1})
        epochs = self.frozen_last_layer_epochs
        rule = f"frozen_last_layer_epochs = {epochs}; give 0 or more"
        require("method", {rule: 0 <= epochs < inf})

    def momenta(self, progress: Progress) -> tuple[float, float]:
        """Return the EMA momenta of a step: that of the encoder, and that of the head."""
        # The release counts the length in samples but advances per step: momentum ends at 0.99601.
        share = 1 / progress.samples if self.momentum_clock == "samples" else 1.0
        own = self.head_momentum
        starts = (self.teacher_momentum, self.teacher_momentum if own == "as_encoder" else own)
        encoder, head = (
            cosine(progress.fraction * share, start, self.final_teacher_momentum)
            for start in starts
        )
        return encoder, head

    def freezes_last_layer(self, progress: Progress) -> bool:
        """Return whether the gradients of the prototype layer are dropped at a step."""
        return progress.epoch < self.frozen_last_layer_epochs


def invariance_term(network: DinoPair, clips: Clips, terms: Terms) -> Float[Tensor, ""]:
    """Return the invariance term: the student sees all crops, the teacher the global ones.

    The teacher's logits are collected for the next centre.

    Args:
        network: Student and teacher.
        clips: Samples with the views "globals" and "locals".
        terms: Pairs of crops that are compared.

    """
    student, teacher = _logits(network, clips)
    loss = _loss(network, student, teacher, clips, terms)
    # The centre of this step must not contain its own logits.
    network.dino_loss.collect(teacher)
    return loss


def invariance_health(network: DinoPair, clips: Clips, terms: Terms) -> dict[str, Tensor]:
    """Return health metrics of the invariance term, without gradient.

    Returns:
        Mean entropy of the targets as a fraction of log(prototypes) (`dino_entropy`), divergence of
        the student from them in nats (`dino_kl`), spread of the teacher's head outputs before the
        prototypes (`spread_head`), and their correlation (`dino_rho`).

    """
    student, teacher = _logits(network, clips)
    loss = _loss(network, student, teacher, clips, terms)
    # Every target is in as many terms as any other, so that loss = entropy + divergence.
    entropy = torch.special.entr(network.dino_loss(teacher)).sum(-1).mean()
    outputs = _projected(network, clips)
    return {
        "dino_entropy": entropy / log(teacher.shape[-1]),
        "dino_kl": loss - entropy,
        "dino_rho": _correlation(outputs, clips, terms),
        "spread_head": spread(outputs.flatten(0, 1)),
    }


def invariance_condition(network: DinoPair, clips: Clips, terms: Terms) -> dict[str, Tensor]:
    """Return the correlation that the loss needs to leave log(prototypes), and the one there is.

    Near uniform targets, a generation of the teacher multiplies the differences between places by
    rho * student temperature / teacher temperature, where rho is the correlation of the head's
    centred outputs for two crops of one place. They vanish if that is below 1.

    Returns:
        Correlation of the teacher's head outputs over the terms of global crops (`dino_rho`; NaN
        for one sample), and its lower bound (`dino_rho_needed`).

    """
    rho = _correlation(_projected(network, clips), clips, terms)
    targets = network.dino_loss
    needed = targets.temperature / targets.config.student_temperature
    return {"dino_rho": rho, "dino_rho_needed": torch.full_like(rho, needed, dtype=torch.float32)}


def few(clips: Clips, most: int) -> Clips:
    """Return at most `most` samples of a batch."""
    views = {name: view[:, :, :most] for name, view in clips.views.items()}
    signals = {name: signal[:, :most] for name, signal in clips.signals.items()}
    return Clips(views=views, seconds=clips.seconds[:, :most], signals=signals)


def _logits(network: DinoPair, clips: Clips) -> tuple[CropLogits, CropLogits]:
    # Crops of the source come first: (frames * crops * batch, 3, height, width).
    global_crops, local_crops = (clips.views[name].flatten(0, 2) for name in ("globals", "locals"))
    # Two sizes of crops, so two passes; their class tokens share one pass of the head.
    classes = [network.encoder(global_crops), network.encoder(local_crops)]
    student = network.head(torch.cat(classes)).unflatten(0, (-1, len(clips)))
    with torch.no_grad():
        teacher = network.teacher.head(network.teacher.encoder(global_crops))
    return student, teacher.unflatten(0, (-1, len(clips)))


def _loss(
    network: DinoPair, student: CropLogits, teacher: CropLogits, clips: Clips, terms: Terms
) -> Tensor:
    targets = network.dino_loss
    return multi_crop_loss(
        student,
        targets(teacher),
        temperature=targets.config.student_temperature,
        num_frames=len(clips.seconds),
        terms=terms,
    )


@torch.no_grad()
def _projected(network: DinoPair, clips: Clips) -> Float[Tensor, "globals batch dim"]:
    classes = network.teacher.encoder(clips.views["globals"].flatten(0, 2))
    return network.teacher.head.project(classes).float().unflatten(0, (-1, len(clips)))


def _correlation(
    outputs: Float[Tensor, "globals batch dim"], clips: Clips, terms: Terms
) -> Float[Tensor, ""]:
    kept = crop_pairs(len(outputs), len(outputs), len(clips.seconds), terms).to(outputs.device)
    centred = outputs - outputs.mean((0, 1))
    with full_precision(outputs):
        # (globals, globals): mean product of two crops of a place.
        products = torch.einsum("qbd,vbd->qv", centred, centred) / len(clips)
    rho = (products * kept).sum() / kept.sum() / products.diagonal().mean().clamp(min=1e-12)
    # The centred crops of a single place sum to 0, so that they would correlate negatively.
    return rho if len(clips) > 1 else torch.full_like(rho, torch.nan)
