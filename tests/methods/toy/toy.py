"""A toy method: from two frames and the actions between, the encoder foresees a third one.

Its two views are a crop of all frames and the whole frames in small; random patches are masked.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import nn

from midway.data.views.boxes import Box
from midway.data.views.photometric import Photometric
from midway.data.views.render import Clips
from midway.data.views.spec import ClipSpec, Region, View
from midway.methods.base import Method, MethodConfig
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.nn.losses.dense import normalized_mse
from midway.train.objective import StepOutput

SMALL = EncoderConfig(image_size=(32, 32), patch_size=8, width=24, depth=2, heads=2, drop_path=0.0)


@dataclass(frozen=True, kw_only=True)
class ToyConfig(MethodConfig):
    name: Literal["toy"] = "toy"
    encoder: EncoderConfig = field(default_factory=lambda: SMALL)
    p_mask: float = 0.5

    @classmethod
    def tiny(cls) -> Self:
        return cls()


class Toy(Method):
    """Predict masked patches of the last frame, and its gist, from the others and the actions."""

    Config: ClassVar[type[MethodConfig]] = ToyConfig

    def __init__(self, config: ToyConfig) -> None:
        super().__init__()
        self.config = config
        crop = View(size=(32, 32), region="crop", aligned=True, photometric=(Photometric(),))
        self.spec = ClipSpec(
            num_frames=3,
            regions={"crop": Region(box=Box(area=(0.2, 0.6))), "frame": Region(short_side=40)},
            views={"crops": crop, "wholes": View(size=(16, 16), region="frame", p_flip=0.5)},
            signals={"action": (2,)},
        )
        width = config.encoder.width
        self.encoder = VisionTransformer(config.encoder)
        self.act = nn.Linear(4, width)
        self.predict = nn.Linear(2 * width, width)

    @property
    def encoders(self) -> dict[str, VisionTransformer]:
        return {"student": self.encoder}

    def loss(self, clips: Clips) -> StepOutput:
        """Masked prediction of the third frame's patches; the gists of the wholes stay alike."""
        frames = [self.encoder.levels(frame[0], (2,))[0] for frame in clips.views["crops"]]
        first, second, third = (tokens[:, 1:] for tokens in frames)  # (batch, patches, width)
        action = self.act(clips.signals["action"][:2].transpose(0, 1).flatten(1))
        foreseen = self.predict(torch.cat([first, second + action[:, None]], dim=2))
        is_masked = torch.rand(third.shape[:2], device=third.device) < self.config.p_mask
        error = (foreseen - third.detach()).square().mean(2)
        masked = (error * is_masked).sum() / is_masked.sum().clamp(min=1)
        gists = self.encoder(clips.views["wholes"][:2, 0].flatten(0, 1)).chunk(2)
        gist = normalized_mse(gists[0][:, None], gists[1][:, None])
        return StepOutput(loss=masked + gist, logs={"masked_loss": masked.detach()})


METHOD = Toy
