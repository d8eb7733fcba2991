"""Midway Network: student encoder, dynamics and DINO head, and their EMA teacher."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from midway.errors import MidwayError
from midway.models.dino import HeadConfig, dino_head, update_all
from midway.models.dynamics import Dynamics, DynamicsConfig, LevelOutput, TargetSide
from midway.models.encoders.base import Encoder, patch_grid
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.nn.losses.dino import DEFAULT_TARGETS, TargetsConfig, TeacherTargets


@dataclass(frozen=True, kw_only=True)
class NetworkConfig:
    """Sizes of the whole network; the defaults are the published ViT-S."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    head: HeadConfig = field(default_factory=HeadConfig)

    def __post_init__(self) -> None:
        if self.dynamics.levels[-1] >= self.encoder.depth:
            raise MidwayError(
                f"dynamics: levels {self.dynamics.levels} must lie below the encoder's top level "
                f"{self.encoder.depth}; give lower ones"
            )
        for name in ("backward_heads", "forward_heads"):
            if self.encoder.width % getattr(self.dynamics, name):
                raise MidwayError(
                    f"dynamics: {name} {getattr(self.dynamics, name)} does not divide the "
                    f"encoder's width {self.encoder.width}; change one"
                )

    @property
    def levels(self) -> tuple[int, ...]:
        """Encoder levels that the dynamics read: the objective levels, then the top."""
        return (*self.dynamics.levels, self.encoder.depth)


@dataclass(frozen=True, kw_only=True)
class MidwayOutput:
    """Output of the network for source and target."""

    levels: dict[int, LevelOutput]
    """By level, from the top down (9, 6, 3 in the paper)."""


# As pytrees, so that torch.export and torch.func take the whole network.
for _kind in (LevelOutput, MidwayOutput):
    torch.export.register_dataclass(_kind, serialized_type_name=f"midway.{_kind.__name__}")


class Teacher(TargetSide):
    """EMA copies of the parts that see the target: encoder, DINO head, `down`, backward layers."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config.encoder.width, config.dynamics)
        self.encoder = VisionTransformer(config.encoder)
        self.head = dino_head(config.encoder.width, config.head)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Remain in evaluation mode: the teacher has no drop path."""
        return super().train(False)


class MidwayNetwork(nn.Module):
    """Encoder, dynamics and DINO head with their EMA teacher.

    Examples:
        >>> import torch
        >>> from midway.models.encoders.vit import EncoderConfig
        >>> encoder = EncoderConfig(image_size=(32, 32), patch_size=8, width=24, depth=4, heads=2)
        >>> dynamics = DynamicsConfig(levels=(1, 3), midway_width=12)
        >>> head = HeadConfig(hidden=16, bottleneck=8, num_prototypes=32)
        >>> net = MidwayNetwork(NetworkConfig(encoder=encoder, dynamics=dynamics, head=head))
        >>> out = net(torch.zeros(2, 3, 32, 32), torch.zeros(2, 3, 32, 32))
        >>> out.levels[3].motion_latents.shape
        torch.Size([2, 10, 12])

    """

    def __init__(self, config: NetworkConfig, targets: TargetsConfig = DEFAULT_TARGETS) -> None:
        super().__init__()
        self.config = config
        self.encoder = VisionTransformer(config.encoder)
        self.dynamics = Dynamics(config.encoder.width, config.encoder.grid, config.dynamics)
        self.head = dino_head(config.encoder.width, config.head)
        self.dino_loss = TeacherTargets(config.head.num_prototypes, targets)
        self.teacher = Teacher(config)
        # The teacher starts as a copy of the student.
        self.update_teacher(momentum=0.0)

    def forward(
        self,
        source: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
    ) -> MidwayOutput:
        """Predict the target from the source; the student sees the source, the teacher the target.

        Args:
            source: ImageNet-normalised; sides are multiples of the patch size.
            target: Frame of the same size, ImageNet-normalised.

        """
        return self.predict(*self.encode(source, target), self.grid(source))

    def at_level(
        self,
        source: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
        level: int,
    ) -> LevelOutput:
        """Return the output of one objective level, without computing those below it."""
        features = self.encode(source, target)
        return self.predict(*features, self.grid(source), lowest=level).levels[level]

    def encode(
        self,
        source: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
    ) -> tuple[list[Tensor], list[Tensor]]:
        """Return the student's features of the source and the teacher's of the target.

        Both have one (batch, 1 + patches, dim) tensor per level of `config.levels`.
        """
        features = self.encoder.levels(source, self.config.levels)
        with torch.no_grad():
            return features, self.teacher.encoder.levels(target, self.config.levels)

    def forward_both_orders(
        self,
        source: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
        *,
        latents_of: Int[Tensor, " batch"] | None = None,
    ) -> MidwayOutput:
        """Predict in both orders, (s, t) and (t, s), stacked along the batch; for training.

        The midway tokens of the outputs are the latents only.

        Args:
            source: ImageNet-normalised.
            target: Frame of the same size.
            latents_of: Pair of the batch with whose latents each target is predicted, in the same
                order of the two frames; None for its own.

        """
        # Each frame passes once through the student and once through the teacher.
        frames = torch.cat([source, target])
        features = self.encoder.levels(frames, self.config.levels)
        with torch.no_grad():
            targets = self.teacher.encoder.levels(frames, self.config.levels)
        # [s; t] -> [t; s]: the target of each row is the other frame of its pair.
        swapped = [level.roll(len(source), dims=0) for level in targets]
        if latents_of is not None:
            latents_of = torch.cat([latents_of, latents_of + len(source)])
        grid = self.grid(frames)
        return self.predict(features, swapped, grid, latents_only=True, latents_of=latents_of)

    def predict(
        self,
        source: list[Tensor],
        target: list[Tensor],
        grid: tuple[int, int],
        *,
        latents_only: bool = False,
        latents_of: Int[Tensor, " batch"] | None = None,
        lowest: int = 1,
    ) -> MidwayOutput:
        """Run the dynamics between the features of two frames at `config.levels`.

        Args:
            source: Student's features, one (batch, 1 + patches, dim) tensor per level.
            target: Teacher's features, of the same shapes.
            grid: Rows and columns of patches.
            latents_only: If True, return only the latents of the midway tokens.
            latents_of: Pair of the batch with whose latents each target is predicted; None for its
                own.
            lowest: Objective level at which to stop.

        """
        levels = self.dynamics(
            source,
            target,
            self.teacher,
            grid,
            latents_only=latents_only,
            latents_of=latents_of,
            lowest=lowest,
        )
        return MidwayOutput(levels=levels)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Encoders of the student and of the EMA teacher."""
        return {"student": self.encoder, "teacher": self.teacher.encoder}

    def grid(self, images: Float[Tensor, "batch 3 height width"]) -> tuple[int, int]:
        """Return rows and columns of patches in images of this size."""
        return patch_grid(images, self.config.encoder.patch_size)

    def update_teacher(self, momentum: float, head_momentum: float | None = None) -> None:
        """Update the teacher by the EMA of the student; a momentum of 0 copies it.

        Args:
            momentum: EMA momentum, in [0, 1].
            head_momentum: EMA momentum of the DINO head; None takes `momentum`.

        """
        parts = [
            (self.teacher.encoder, self.encoder),
            (self.teacher.down, self.dynamics.down),
            (self.teacher.backward_layers, self.dynamics.backward_layers),
        ]
        update_all(parts, momentum)
        head = [(self.teacher.head, self.head)]
        update_all(head, momentum if head_momentum is None else head_momentum)
