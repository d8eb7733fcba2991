"""Midway Network: dense forward prediction between frames, and a DINO term over their crops."""

from dataclasses import dataclass, field
from math import inf
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from midway.config import require
from midway.data.sampling.loader import ClipBatch
from midway.data.views.pair_crops import ViewsConfig
from midway.data.views.render import Clips
from midway.errors import MidwayError
from midway.methods.base import About, MethodConfig, TeacherMethod
from midway.models.dino import HeadConfig
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.vit import EncoderConfig
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.vit_config import TINY_STD
from midway.models.weights.load import build_network
from midway.models.weights.sources import differing, read_source
from midway.nn.losses.dense import mean_or_sum, normalized_mse
from midway.nn.losses.dino import Terms
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
class MidwayConfig(TeacherConfig, MethodConfig):
    """Configuration of the objective; the defaults follow the release where the paper differs."""

    name: Literal["midway"] = "midway"
    network: NetworkConfig = field(default_factory=NetworkConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    dense_over_levels: Literal["mean", "sum"] = "sum"
    """Reduction of the dense loss over levels: sum in the release, mean in the paper."""
    dino_weight: float = 1.0
    """Weight of the DINO term; 0 disables it. Its crops are still drawn and rendered."""
    dense_weight: float = 1.0
    """Weight of the dense term; 0 disables it and freezes the dynamics. Its crops are still drawn
    and rendered."""
    terms: Terms = "same_and_cross"
    """Crops that the DINO term compares: those of both frames, 72 terms as in the release, or those
    of different frames only, 40 terms as in the paper's text."""
    encoder_lr_scale: float = 1.0
    """Factor on the learning rate of the encoder; 0 freezes it and trains the dynamics only."""
    dynamics_weight_decay: float | Literal["scheduled"] = 0.01
    """Weight decay of the dynamics: constant in the release, scheduled in the paper."""
    clip_dynamics: bool = False
    """If True, gradient clipping covers the dynamics; in the release it does not."""
    exchanged_latents: bool = False
    """If True, cut the motion crop in halves, left and right, and predict each half with the
    motion latents of the other: they share a motion but no content, so that latents encode
    motion, or colours and light if both halves share those. For videos in which most of the frame
    moves as one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("dino_weight", "dense_weight", "encoder_lr_scale"):
            value = getattr(self, name)
            require("method", {f"{name} = {value}; give 0 or more": 0 <= value < inf})
        some = self.dino_weight > 0 or self.dense_weight > 0
        require("method", {"dino_weight and dense_weight = 0; give one of them above 0": some})
        if self.exchanged_latents:
            width, patch = self.views.motion_size[1], self.network.encoder.patch_size
            rule = f"exchanged_latents with crops of {width} pixels; give an even number of patches"
            require("method", {rule: width % (2 * patch) == 0})
            has_latents = self.network.dynamics.latent_dynamics
            require("method", {"exchanged_latents without latent_dynamics; set both": has_latents})
        if (decay := self.dynamics_weight_decay) != "scheduled":
            rule = f"dynamics_weight_decay = {decay}; give 0 or more"
            require("method", {rule: 0 <= decay < inf})

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: crops of 64 pixels, four blocks of width 96, both terms."""
        encoder = EncoderConfig.tiny()
        dynamics = DynamicsConfig(
            levels=(1, 3),
            midway_width=48,
            midway_depth=2,
            forward_depth=2,
            backward_heads=3,
            forward_heads=3,
            init_std=TINY_STD,
        )
        head = HeadConfig.tiny()
        return cls(
            network=NetworkConfig(encoder=encoder, dynamics=dynamics, head=head),
            views=ViewsConfig(
                motion_size=(64, 64),
                global_size=(64, 64),
                local_size=(32, 32),
                num_local=3,
                motion_area=(0.3, 0.6),
                initial_area=(0.1, 0.35),
                local_area=(0.15, 0.5),
            ),
            dense_over_levels="mean",
            momentum_clock="steps",
            dynamics_weight_decay="scheduled",
            clip_dynamics=True,
        )


class Midway(TeacherMethod[MidwayNetwork]):
    """The paper's objective over a `MidwayNetwork` (section 3, Algorithm 1)."""

    Config: ClassVar[type[MethodConfig]] = MidwayConfig
    about = About(
        paper="Hoang and Ren, ICLR 2026, arXiv 2510.05558",
        code_licence="GPL-3.0",
        weights_licence="see the hub page",
        weights="midway-bdd-vits, midway-bdd-vitb, midway-wt-vits",
        sample="2 frames",
        encoder_megaparameters=21.67,
        other_megaparameters=58.95,
        giga_multiply_adds=87.3,
        paper_giga_multiply_adds=90.8,
        activation_megabytes=982,
    )

    def __init__(self, config: MidwayConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = config.views.spec()
        self.network = MidwayNetwork(config.network, config.targets)
        if config.dino_weight == 0:
            self.network.head.requires_grad_(False)
        if config.dense_weight == 0:
            self.network.dynamics.requires_grad_(False)
        if config.encoder_lr_scale == 0:
            self.network.encoder.requires_grad_(False)

    def loss(self, clips: Clips) -> StepOutput:
        """Return the DINO term plus the dense term, equally weighted in the paper (section 3)."""
        config, weighted, logs = self.config, [], {}
        if config.dense_weight:
            source, target = self._motion_crops(clips)
            other = None
            if config.exchanged_latents:
                other = torch.arange(len(source), device=source.device).roll(len(source) // 2)
            # Both (s, t) and (t, s) are trained; each frame is encoded once.
            outputs = self.network.forward_both_orders(source, target, latents_of=other).levels
            dense = mean_or_sum((out.loss for out in outputs.values()), config.dense_over_levels)
            weighted.append(config.dense_weight * dense)
            by_level = {f"dense_loss_{level}": out.loss.detach() for level, out in outputs.items()}
            logs = {"dense_loss": dense.detach()} | by_level
        if config.dino_weight:
            dino = invariance_term(self.network, clips, config.terms)
            weighted.append(config.dino_weight * dino)
            logs = {"dino_loss": dino.detach()} | logs
        return StepOutput(
            loss=weighted[0] if len(weighted) == 1 else weighted[0] + weighted[1], logs=logs
        )

    def start_from(self, network: str) -> None:
        """Load all weights of a Midway network, or the encoder of another network.

        Args:
            network: As for `--network`.

        Raises:
            MidwayError: No such network, or its sizes differ.

        """
        file = read_source(network)
        if file is None or not file.has_network:
            super().start_from(network)
            return
        state = build_network(file).state_dict()
        if other := differing(state, self.network.state_dict()):
            raise MidwayError(
                f"method.start = {network}: its sizes are not those of this experiment "
                f"({other[0]} differs); give one trained with the same method.network"
            )
        self.network.load_state_dict(state)

    def health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return `pair_health` of the motion crops of a batch, and the DINO term's health."""
        config, clips = self.config, few(batch.render(self.spec), HEALTH_SAMPLES)
        found: dict[str, Tensor] = {}
        if config.dense_weight:
            found |= self.pair_health(*self._motion_crops(clips))
        if config.dino_weight:
            found |= invariance_health(self.network, clips, config.terms)
        return found

    def pictures(self, batch: ClipBatch) -> dict[str, NDArray[np.uint8]]:
        """Return features by PCA, and the heatmaps of the central patch of motion crops."""
        from midway.analysis.training_pictures import heatmap_picture

        found = super().pictures(batch)
        if self.config.dense_weight:
            found["heatmaps"] = heatmap_picture(
                self.network, *self._motion_crops(batch.render(self.spec))
            )
        return found

    def starting_health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return measured and required correlation of head outputs; {} without a DINO term."""
        if not self.config.dino_weight:
            return {}
        return invariance_condition(self.network, batch.render(self.spec), self.config.terms)

    def pair_health(self, source: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Return health metrics of the teacher's features and of their prediction.

        Args:
            source: Shape (batch, 3, height, width), ImageNet-normalised.
            target: Same shape, ImageNet-normalised.

        Returns:
            For each level, effective rank and spread of the teacher's patches, the targets of the
            prediction. For each objective level also the dense loss of copying the teacher's
            features of the source (`copy_loss`), the ratio of the dense loss to it
            (`dense_over_copy`; 1 or more is no better than copying), and the mean gate of each
            forward block.

        """
        network = self.network
        outputs = network(source, target).levels
        frames = torch.cat([source, target])
        found: dict[str, Tensor] = {}
        levels = network.config.levels
        seen = network.teacher.encoder.levels(frames, levels)
        for level, features in zip(levels, seen, strict=True):
            # (2 * batch * patches, dim)
            found |= feature_health(features[:, 1:].flatten(0, 1), level)
            if level in outputs:
                copied = normalized_mse(*features.chunk(2))  # source against target
                found[f"copy_loss_{level}"] = copied
                # Equal frames have a copy loss of 0.
                found[f"dense_over_copy_{level}"] = outputs[level].loss / copied.clamp(min=1e-6)
                # The first forward block has no gate.
                for block, gate in enumerate(outputs[level].gates, start=2):
                    found[f"gate_{level}_{block}"] = gate.float().mean()
        return found

    def _motion_crops(self, clips: Clips) -> tuple[Tensor, Tensor]:
        """Return source and target (batch, 3, height, width), or the halves of both."""
        source, target = clips.views["motion"][:, 0]
        if not self.config.exchanged_latents:
            return source, target
        # (batch, 3, height, width) -> (2 * batch, 3, height, width / 2)
        return torch.cat(source.chunk(2, dim=3)), torch.cat(target.chunk(2, dim=3))

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return groups of encoder, head and dynamics, which have a separate weight decay."""
        network, config = self.network, self.config
        return [
            *parameter_groups(network.encoder, "encoder", lr_scale=config.encoder_lr_scale),
            *parameter_groups(network.head, "head"),
            *parameter_groups(
                network.dynamics,
                "dynamics",
                weight_decay=config.dynamics_weight_decay,
                clip=config.clip_dynamics,
            ),
        ]


METHOD = Midway
