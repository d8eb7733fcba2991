"""Action-conditioned dynamics: dense prediction of the frames that recorded actions lead to.

The forward model of Midway receives the action between two frames instead of inferred motion
latents (the paper's future work). It is applied repeatedly, from the first frame of a clip to its
last, and its predictions can be rolled out for planning (`midway eval planning`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor

from midway.config import check_at_least, require
from midway.data.sampling.loader import ClipBatch
from midway.data.views.render import Clips
from midway.data.views.spec import ClipSpec, Region, View
from midway.methods.base import About, Method, MethodConfig
from midway.models.action import ActionNetwork, ActionNetworkConfig
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import EncoderConfig
from midway.models.vit_config import TINY_STD
from midway.nn.losses.dense import normalized_mse
from midway.train.distillation import HEALTH_SAMPLES, few
from midway.train.health import feature_health
from midway.train.objective import ParameterGroup, Progress, StepOutput, parameter_groups


@dataclass(frozen=True, kw_only=True)
class ActionConditionedConfig(MethodConfig):
    """Configuration of this method."""

    name: Literal["action_conditioned"] = "action_conditioned"
    network: ActionNetworkConfig = field(default_factory=ActionNetworkConfig)
    num_frames: int = 2
    """Frames of a clip: 2 train single steps, more train roll-outs."""
    teacher_momentum: float = 0.996
    """EMA momentum of the teacher; 1 keeps its initial weights."""
    encoder_lr_scale: float = 1.0
    """Factor on the learning rate of the encoder; 0 freezes it and trains the forward model only.
    If the encoder learns, only the teacher's lag prevents collapse to constant features."""

    def __post_init__(self) -> None:
        check_at_least("method", self, num_frames=2)
        momentum, scale = self.teacher_momentum, self.encoder_lr_scale
        rules = {
            f"teacher_momentum = {momentum}; give 0 to 1": 0 <= momentum <= 1,
            f"encoder_lr_scale = {scale}; give 0 or more": 0 <= scale < inf,
        }
        require("method", rules)

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: whole frames at 64 pixels, roll-outs over two steps."""
        encoder = EncoderConfig.tiny()
        network = ActionNetworkConfig(
            encoder=encoder,
            level=encoder.depth,
            hidden=64,
            forward_depth=2,
            forward_heads=3,
            init_std=TINY_STD,
        )
        return cls(network=network, num_frames=3)


class ActionConditioned(Method):
    """Dense forward prediction from recorded actions."""

    Config: ClassVar[type[MethodConfig]] = ActionConditionedConfig
    about = About(
        paper="after the future work of Hoang and Ren, ICLR 2026, arXiv 2510.05558",
        code_licence="none published",
        weights_licence="-",
        weights="",
        sample="2 frames and the action between them",
        encoder_megaparameters=21.67,
        other_megaparameters=8.03,
        giga_multiply_adds=10.89,
        paper_giga_multiply_adds=None,
        activation_megabytes=99.8,
    )

    def __init__(self, config: ActionConditionedConfig) -> None:
        super().__init__()
        self.config = config
        # An action moves the whole frame: no crop, flip or distortion may come between.
        self.spec = ClipSpec(
            num_frames=config.num_frames,
            regions={"frame": Region()},
            views={"frames": View(size=config.network.encoder.image_size, region="frame")},
            signals={"action": (config.network.action_size,)},
        )
        self.network = ActionNetwork(config.network)
        if config.encoder_lr_scale == 0:
            self.network.encoder.requires_grad_(False)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Student and EMA teacher."""
        return self.network.encoders

    def loss(self, clips: Clips) -> StepOutput:
        """Return the dense loss (eq. 1) of the roll-out, averaged over its steps."""
        losses = self.step_losses(clips)
        by_step = {f"dense_loss_{n}": loss.detach() for n, loss in enumerate(losses, start=1)}
        return StepOutput(loss=torch.stack(losses).mean(), logs=by_step)

    def step_losses(self, clips: Clips) -> list[Tensor]:
        """Return the dense loss of the prediction of each frame from the first one."""
        first, *later = clips.views["frames"][:, 0]  # (batch, 3, height, width) each
        # The action at a frame leads to the next one; that of the last frame is not used.
        actions = clips.signals["action"][:-1]  # (steps, batch, action)
        predicted = self.network.roll_out(self.network.state(first), actions)
        targets = self.network.target(torch.cat(later)).chunk(len(later))
        return [normalized_mse(*each) for each in zip(predicted, targets, strict=True)]

    def health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return metrics of the teacher's features, and each step's loss relative to copying.

        `dense_over_copy_N` is the dense loss of step N divided by that of the teacher's features of
        the first frame; 1 or more is no better than copying.
        """
        clips = few(batch.render(self.spec), HEALTH_SAMPLES)
        frames = clips.views["frames"][:, 0]
        first, *later = self.network.target(frames.flatten(0, 1)).chunk(len(frames))
        found = feature_health(first[:, 1:].flatten(0, 1), self.config.network.level)
        for step, (loss, seen) in enumerate(
            zip(self.step_losses(clips), later, strict=True), start=1
        ):
            # Equal frames have a copy loss of 0.
            copied = normalized_mse(first, seen).clamp(min=1e-6)
            found[f"dense_over_copy_{step}"] = loss / copied
        return found

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the groups of the encoder, the forward model and the MLP of the action."""
        network, scale = self.network, self.config.encoder_lr_scale
        return [
            *parameter_groups(network.encoder, "encoder", lr_scale=scale),
            *parameter_groups(network.forward_model, "forward_model"),
            *parameter_groups(network.act, "action"),
        ]

    def after_step(self, progress: Progress) -> None:
        """Update the teacher."""
        self.network.update_teacher(self.config.teacher_momentum)


METHOD = ActionConditioned
