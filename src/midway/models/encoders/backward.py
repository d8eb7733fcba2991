"""Encoder that returns the backward features of a Midway network."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

from midway.errors import MidwayError
from midway.models.dynamics import DynamicsConfig, TargetSide
from midway.models.encoders.base import Encoder, Images, Map, as_map
from midway.models.encoders.vit import EncoderConfig, VisionTransformer


@dataclass(frozen=True, kw_only=True)
class BackwardConfig:
    """Sizes of the encoder, and of the dynamics with the backward layers."""

    encoder: EncoderConfig
    dynamics: DynamicsConfig


class BackwardEncoder(Encoder):
    """Backward features v of Midway: each level is refined by those above; the top is z itself.

    Args:
        vit: Encoder of the features.
        side: Dynamics of the student, or teacher, with the backward layers.

    Raises:
        MidwayError: The network has no backward layers.

    """

    kind = "backward"
    Config: ClassVar[type] = BackwardConfig
    config: BackwardConfig

    def __init__(self, vit: VisionTransformer, side: TargetSide) -> None:
        super().__init__()
        if not side.backward_layers:
            raise MidwayError(
                "no backward features: the network was trained without backward layers; take "
                "--features encoder"
            )
        self.config = BackwardConfig(encoder=vit.config, dynamics=side.config)
        self.vit = vit
        self.refine = side.backward_layers
        self.width, self.depth, self.stride = vit.width, vit.depth, vit.stride

    @classmethod
    def from_config(cls, config: BackwardConfig) -> Self:
        """Build encoder and backward layers with fresh weights."""
        vit = VisionTransformer(config.encoder)
        return cls(vit, TargetSide(vit.width, config.dynamics))

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the training images in pixels."""
        return self.vit.image_size

    def maps(self, images: Images, levels: Sequence[int]) -> list[Map]:
        """Return one map per level, without the class token.

        Raises:
            MidwayError: A level is neither one of the dynamics nor the top.

        """
        wanted = self.resolved(levels)
        present = sorted(map(int, self.refine))
        if not {*wanted} <= {*present, self.depth}:
            known = ", ".join(map(str, (*present, self.depth)))
            raise MidwayError(
                f"levels {tuple(levels)}: the network has backward features at {known}; "
                "choose from those"
            )
        # All levels above a wanted one are needed: each is the memory of the next.
        *features, above = self.vit.levels(images, (*present, self.depth))
        found = {self.depth: above}
        for level, z in reversed([*zip(present, features, strict=True)]):
            # v_l = Backward_l(z_l, memory = v of the level above)
            found[level] = above = self.refine[str(level)](z, above)
        return [as_map(found[level][:, 1:], images, self.stride) for level in wanted]

    def set_drop_path(self, p: float) -> None:
        """Raise an error: backward features come from frozen networks.

        Raises:
            MidwayError: Always.

        """
        raise MidwayError("backward features cannot be finetuned; take --features encoder")


ENCODER = BackwardEncoder
