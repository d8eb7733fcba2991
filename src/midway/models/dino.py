"""DINO's network: encoder and projection head of a student, and their EMA teacher."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import chain
from typing import Protocol, Self

from torch import nn

from midway.config import check_at_least, check_at_most
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.vit_config import TINY_STD
from midway.nn.blocks import init_transformer
from midway.nn.ema import update_ema
from midway.nn.losses.dino import (
    DEFAULT_TARGETS,
    DinoHead,
    PrototypeInit,
    TargetsConfig,
    TeacherTargets,
)


@dataclass(frozen=True, kw_only=True)
class HeadConfig:
    """Sizes and initial weights of the DINO head."""

    hidden: int = 2048
    bottleneck: int = 256
    num_prototypes: int = 65536
    init_std: float = 0.02
    """Standard deviation of the initial weights of linear layers."""
    prototype_init: PrototypeInit = "trunc_normal"
    """Initial prototype directions: truncated normal (std 0.02), or uniform up to
    1 / sqrt(bottleneck) as in DINO, which Adam turns more slowly."""

    def __post_init__(self) -> None:
        check_at_least("head", self, hidden=1, bottleneck=1, num_prototypes=1)
        check_at_most("head", self, hidden=2**17, bottleneck=2**16, num_prototypes=2**24)

    @classmethod
    def tiny(cls, prototype_init: PrototypeInit = "trunc_normal") -> Self:
        """Return the head of `EncoderConfig.tiny`, with 256 prototypes."""
        return cls(
            hidden=256,
            bottleneck=64,
            num_prototypes=256,
            init_std=TINY_STD,
            prototype_init=prototype_init,
        )


def dino_head(dim: int, config: HeadConfig) -> DinoHead:
    """Build a head on class tokens of width `dim`, with fresh weights."""
    head = DinoHead(
        dim,
        hidden=config.hidden,
        bottleneck=config.bottleneck,
        num_prototypes=config.num_prototypes,
        prototype_init=config.prototype_init,
    )
    init_transformer(head, config.init_std)
    return head


class Side(Protocol):
    """Student or teacher: an encoder with its head."""

    @property
    def encoder(self) -> VisionTransformer:
        """Encoder with a class token."""
        ...

    @property
    def head(self) -> DinoHead:
        """Head on the class token."""
        ...


class DinoPair(Side, Protocol):
    """Interface of a student with its teacher, such as `DinoNetwork` or `MidwayNetwork`."""

    @property
    def teacher(self) -> Side:
        """EMA copies of encoder and head."""
        ...

    @property
    def dino_loss(self) -> TeacherTargets:
        """Targets from the teacher's logits."""
        ...


class DinoTeacher(nn.Module):
    """EMA copies of encoder and head."""

    def __init__(self, encoder: EncoderConfig, head: HeadConfig) -> None:
        super().__init__()
        self.encoder = VisionTransformer(encoder)
        self.head = dino_head(encoder.width, head)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> "DinoTeacher":
        """Remain in evaluation mode: the teacher has no drop path."""
        return super().train(False)


class DinoNetwork(nn.Module):
    """Student encoder and head, their EMA teacher, and its targets."""

    def __init__(
        self,
        encoder: EncoderConfig,
        head: HeadConfig,
        targets: TargetsConfig = DEFAULT_TARGETS,
    ) -> None:
        super().__init__()
        self.encoder = VisionTransformer(encoder)
        self.head = dino_head(encoder.width, head)
        # Named as in Midway's checkpoints and in published files.
        self.dino_loss = TeacherTargets(head.num_prototypes, targets)
        self.teacher = DinoTeacher(encoder, head)
        # The teacher starts as a copy of the student.
        self.update_teacher(momentum=0.0)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Encoders of the student and of the EMA teacher."""
        return {"student": self.encoder, "teacher": self.teacher.encoder}

    def update_teacher(self, momentum: float, head_momentum: float | None = None) -> None:
        """Update the teacher by the EMA of the student; a momentum of 0 copies it.

        Args:
            momentum: EMA momentum of the encoder, in [0, 1].
            head_momentum: That of the head; None takes `momentum`.

        """
        update_all([(self.teacher.encoder, self.encoder)], momentum)
        head = [(self.teacher.head, self.head)]
        update_all(head, momentum if head_momentum is None else head_momentum)


def update_all(parts: Iterable[tuple[nn.Module, nn.Module]], momentum: float) -> None:
    """Update the parameters of (teacher, student) parts by one fused EMA."""
    # Parameters only: none of these parts has running statistics.
    teachers, students = zip(*parts, strict=True)
    update_ema(
        chain.from_iterable(part.parameters() for part in teachers),
        chain.from_iterable(part.parameters() for part in students),
        momentum,
    )
