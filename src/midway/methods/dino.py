"""DINO (Caron et al., 2021) on frame pairs, the paper's baseline, or on single frames."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

from torch import Tensor

from midway.config import require
from midway.data.sampling.loader import ClipBatch
from midway.data.views.pair_crops import MultiCropConfig
from midway.data.views.render import Clips
from midway.methods.base import About, MethodConfig, TeacherMethod
from midway.models.dino import DinoNetwork, HeadConfig
from midway.models.encoders.vit import EncoderConfig
from midway.nn.losses.dino import TargetsConfig, Terms
from midway.train.distillation import (
    HEALTH_SAMPLES,
    TeacherConfig,
    few,
    invariance_condition,
    invariance_health,
    invariance_term,
)
from midway.train.health import feature_health
from midway.train.objective import ParameterGroup, StepOutput, parameter_groups


@dataclass(frozen=True, kw_only=True)
class DinoConfig(TeacherConfig, MethodConfig):
    """Configuration of DINO; the defaults are the paper's baseline, a ViT-S on frame pairs."""

    name: Literal["dino"] = "dino"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=lambda: HeadConfig(prototype_init="uniform"))
    views: MultiCropConfig = field(default_factory=MultiCropConfig)
    num_frames: Literal[1, 2] = 2
    """2 for pairs, 1 for single frames."""
    terms: Terms = "same_and_cross"
    """Crops that are compared: those of all frames (72 terms of a pair, 18 of a frame), or those of
    different frames only (40 terms of a pair)."""
    momentum_clock: Literal["steps", "samples"] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "terms = cross: compares different frames; give num_frames 2"
        require("method", {rule: self.terms != "cross" or self.num_frames == 2})

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: crops of 64 pixels, four blocks of width 96."""
        return cls(
            encoder=EncoderConfig.tiny(),
            head=HeadConfig.tiny("uniform"),
            views=MultiCropConfig(
                global_size=(64, 64),
                local_size=(32, 32),
                num_local=3,
                initial_area=(0.1, 0.35),
                local_area=(0.15, 0.5),
            ),
            targets=TargetsConfig(center_start="first_batch"),
            # A faster teacher ends up with equal targets for crops that share nothing, as noise.
            teacher_momentum=0.9995,
        )


class Dino(TeacherMethod[DinoNetwork]):
    """The invariance term of the paper's objective, without its dense term (section 3)."""

    Config: ClassVar[type[MethodConfig]] = DinoConfig
    about = About(
        paper="Caron et al., ICCV 2021, arXiv 2104.14294",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        weights="all files of the release, backbone alone or with heads",
        sample="2 frames",
        encoder_megaparameters=21.67,
        other_megaparameters=22.35,
        giga_multiply_adds=47.17,
        paper_giga_multiply_adds=50.4,
        activation_megabytes=474.4,
    )

    def __init__(self, config: DinoConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = config.views.spec(config.num_frames)
        self.network = DinoNetwork(config.encoder, config.head, config.targets)

    def loss(self, clips: Clips) -> StepOutput:
        """Return the mean cross-entropy over the compared crops."""
        return StepOutput(loss=invariance_term(self.network, clips, self.config.terms))

    def health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return rank and spread of the teacher's top-level patches, and the loss's health."""
        clips = few(batch.render(self.spec), HEALTH_SAMPLES)
        encoder = self.network.teacher.encoder
        # (globals * batch, 1 + patches, dim)
        features = encoder.levels(clips.views["globals"].flatten(0, 2), (-1,))[0]
        found = feature_health(features[:, 1:].flatten(0, 1), encoder.depth)
        return found | invariance_health(self.network, clips, self.config.terms)

    def starting_health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return the measured and required correlation of head outputs."""
        return invariance_condition(self.network, batch.render(self.spec), self.config.terms)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return groups of encoder and head."""
        return [
            *parameter_groups(self.network.encoder, "encoder"),
            *parameter_groups(self.network.head, "head"),
        ]


METHOD = Dino
