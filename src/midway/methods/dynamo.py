"""DynaMo: inverse and forward dynamics between the class tokens of frames, and a DINO term.

Cui et al., "DynaMo: In-domain dynamics pretraining for visuo-motor control", NeurIPS 2024. The
defaults are the version that the Midway paper compares with: pairs, a ViT-S, and DINO's term. With
`dino_weight` 0 and longer windows it is the original form (docs/methods/dynamo.md).
"""

from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.config import check_at_least, require
from midway.data.sampling.loader import ClipBatch
from midway.data.views.pair_crops import ViewsConfig
from midway.data.views.render import Clips
from midway.data.views.spec import ClipSpec
from midway.methods.base import About, MethodConfig, TeacherMethod
from midway.models.dino import DinoNetwork, HeadConfig
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.nn.causal import CausalConfig, CausalTransformer
from midway.nn.device import mean_over_ranks, num_ranks
from midway.nn.losses.dino import TargetsConfig, Terms, full_precision
from midway.train.distillation import (
    HEALTH_SAMPLES,
    TeacherConfig,
    few,
    invariance_condition,
    invariance_health,
    invariance_term,
)
from midway.train.health import feature_health
from midway.train.objective import StepOutput

Classes = Float[Tensor, "batch frames dim"]


@dataclass(frozen=True, kw_only=True)
class DynamoConfig(TeacherConfig, MethodConfig):
    """Configuration of the objective."""

    name: Literal["dynamo"] = "dynamo"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=HeadConfig)
    momentum_clock: Literal["steps", "samples"] = "steps"
    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Crops; the dynamics see the motion crop, the DINO term all others."""
    num_frames: int = 2
    """Frames of a window."""
    dynamics: CausalConfig = field(default_factory=CausalConfig)
    """Sizes of the inverse and of the forward dynamics; the defaults give the paper's 13.0 M."""
    latent_width: int = 64
    """Width of the latent between two frames, the bottleneck of the inverse dynamics."""
    target: Literal["teacher", "student"] = "teacher"
    """Network that gives the class token to predict: the EMA teacher, or the student itself without
    gradient (SimSiam)."""
    covariance_weight: float = 0.04
    dino_weight: float = 1.0
    """Weight of the DINO term; with 0 its crops are not drawn."""
    terms: Terms = "same_and_cross"
    """Crops that the DINO term compares: those of all frames, or those of different frames only."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("method", self, num_frames=2, latent_width=1)
        for name in ("covariance_weight", "dino_weight"):
            value = getattr(self, name)
            require("method", {f"{name} = {value}; give 0 or more": 0 <= value < inf})

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: crops of 64 pixels, four blocks of width 96, all terms."""
        encoder = EncoderConfig.tiny()
        return cls(
            encoder=encoder,
            head=HeadConfig.tiny(),
            views=ViewsConfig(
                motion_size=(64, 64),
                global_size=(64, 64),
                local_size=(32, 32),
                num_local=3,
                motion_area=(0.3, 0.6),
                initial_area=(0.1, 0.35),
                local_area=(0.15, 0.5),
            ),
            dynamics=CausalConfig(width=48, depth=2, heads=3),
            latent_width=16,
            targets=TargetsConfig(center_start="first_batch"),
            # A faster teacher ends up with equal targets for crops that share nothing, as noise.
            teacher_momentum=0.9995,
        )


class Dynamo(TeacherMethod[DinoNetwork]):
    """Inverse and forward dynamics between the class tokens of neighbouring frames."""

    Config: ClassVar[type[MethodConfig]] = DynamoConfig
    about = About(
        paper="Cui et al., NeurIPS 2024, arXiv 2409.12192",
        code_licence="MIT",
        weights_licence="-",
        weights="",
        sample="2 frames",
        encoder_megaparameters=21.67,
        other_megaparameters=35.3,
        giga_multiply_adds=64.42,
        paper_giga_multiply_adds=68.9,
        activation_megabytes=605.7,
    )

    def __init__(self, config: DynamoConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = _spec(config)
        self.network = DinoNetwork(config.encoder, config.head, config.targets)
        if config.dino_weight == 0:
            self.network.head.requires_grad_(False)
        width, latent, length = config.encoder.width, config.latent_width, config.num_frames
        sizes = config.dynamics
        self.inverse = CausalTransformer(sizes, dim_in=width, dim_out=latent, length=length)
        self.forward_dynamics = CausalTransformer(
            sizes, dim_in=width + latent, dim_out=width, length=length - 1
        )

    def loss(self, clips: Clips) -> StepOutput:
        """Return dynamics, covariance and DINO term, weighted."""
        config = self.config
        frames = clips.views["motion"][:, 0]  # (frames, batch, 3, height, width)
        student = _class_tokens(self.network.encoder, frames)
        targets = self.targets(student, frames)
        dynamics = prediction_error(self.predict(student), targets[:, 1:])
        covariance = covariance_penalty(student.flatten(0, 1))
        loss = dynamics + config.covariance_weight * covariance
        logs = {"dynamics_loss": dynamics.detach(), "covariance": covariance.detach()}
        if config.dino_weight:
            dino = invariance_term(self.network, clips, config.terms)
            loss = loss + config.dino_weight * dino
            logs["dino_loss"] = dino.detach()
        return StepOutput(loss=loss, logs=logs)

    def predict(self, classes: Classes) -> Float[Tensor, "batch later dim"]:
        """Return the class tokens of all frames but the first, predicted from those before them.

        Args:
            classes: Class tokens of the frames of a window.

        """
        # Latent t knows the frames up to t; with frame t - 1 it has to explain frame t.
        latents = self.inverse(classes)[:, 1:]  # (batch, frames - 1, latent)
        return self.forward_dynamics(torch.cat([classes[:, :-1], latents], dim=-1))

    def targets(self, student: Classes, frames: Tensor) -> Classes:
        """Return the class tokens to predict, without gradient.

        Args:
            student: The student's class tokens of the frames.
            frames: Images of shape (frames, batch, 3, height, width).

        """
        if self.config.target == "student":
            return student.detach()
        with torch.no_grad():
            return _class_tokens(self.network.teacher.encoder, frames)

    def health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return metrics of the class tokens, and the dynamics' loss relative to copying.

        `dynamics_over_copy` is the ratio of the prediction's error to that of the class token
        before; 1 or more is no better than copying.
        """
        clips = few(batch.render(self.spec), HEALTH_SAMPLES)
        frames = clips.views["motion"][:, 0]
        student = _class_tokens(self.network.encoder, frames)
        targets = self.targets(student, frames)
        copied = prediction_error(targets[:, :-1], targets[:, 1:])
        predicted = prediction_error(self.predict(student), targets[:, 1:])
        found = feature_health(targets.flatten(0, 1), self.config.encoder.depth)
        # Equal frames have a copy loss of 0.
        found |= {"copy_loss": copied, "dynamics_over_copy": predicted / copied.clamp(min=1e-6)}
        if self.config.dino_weight:
            found |= invariance_health(self.network, clips, self.config.terms)
        return found

    def starting_health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return measured and required correlation of head outputs; {} without a DINO term."""
        if not self.config.dino_weight:
            return {}
        return invariance_condition(self.network, batch.render(self.spec), self.config.terms)


def prediction_error(
    predicted: Float[Tensor, "batch frames dim"], target: Float[Tensor, "batch frames dim"]
) -> Float[Tensor, ""]:
    """Return 1 - cosine similarity, averaged over batch and frames, in float32."""
    with full_precision(predicted):
        return (1 - F.cosine_similarity(predicted.float(), target.float(), dim=-1)).mean()


def covariance_penalty(features: Float[Tensor, "samples dim"]) -> Float[Tensor, ""]:
    """Return the mean squared covariance over pairs of different channels, in float32.

    Args:
        features: Samples of this rank; the covariance is that of the samples of all ranks.

    """
    with full_precision(features):
        features = features.float()
        centred = features - mean_over_ranks(features.mean(0).detach())
        own = centred.t() @ centred / len(centred)  # (dim, dim)
        # The value of all ranks with the gradient of this one: DDP averages the gradients.
        covariance = own + (mean_over_ranks(own) - own).detach()
        samples = len(features) * num_ranks()
        squared = (covariance * samples / (samples - 1)).square()
        dim = len(squared)
        return (squared.sum() - squared.diagonal().sum()) / max(dim * (dim - 1), 1)


def _class_tokens(encoder: VisionTransformer, frames: Tensor) -> Classes:
    """Return the class tokens of frames in the order (frames, batch)."""
    classes = encoder(frames.flatten(0, 1))
    return classes.unflatten(0, frames.shape[:2]).transpose(0, 1)


def _spec(config: DynamoConfig) -> ClipSpec:
    """Return the crops of a pair for all frames of a window; without the DINO term, one crop."""
    spec = config.views.spec(config.num_frames)
    if config.dino_weight:
        return spec
    motion = spec.views["motion"]
    regions = {motion.region: spec.regions[motion.region]}
    return ClipSpec(num_frames=config.num_frames, regions=regions, views={"motion": motion})


METHOD = Dynamo
