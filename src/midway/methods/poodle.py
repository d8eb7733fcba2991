"""PooDLe (Wang et al., 2025): dense features that follow optical flow, and pooled crops."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.config import require
from midway.data.sampling.loader import ClipBatch
from midway.data.views.boxes import Box
from midway.data.views.photometric import Photometric
from midway.data.views.render import Clips
from midway.data.views.spec import ClipSpec, Region, View
from midway.methods.base import About, Method, MethodConfig
from midway.models.encoders.base import Encoder
from midway.models.encoders.poodle import SpatialDecoder, SpatialDecoderConfig
from midway.models.encoders.resnet import ResNetConfig
from midway.models.flow.external import FlowConfig, external_flow
from midway.models.weights.sources import encoder_state
from midway.nn.ema import update_ema
from midway.nn.images import denormalise
from midway.nn.losses.equivariance import WarpOrder, equivariance_loss, squared_distance
from midway.nn.subcrops import SubcropConfig, cut, draw_subcrops
from midway.nn.warp import AffineRange, AffineView, known
from midway.train.health import effective_rank, spread
from midway.train.objective import Progress, StepOutput
from midway.train.schedules import cosine

DISTORTED = Photometric(jitter=(0.8, 0.8, 0.8, 0.2), p_blur=0.5)
"""Augmentation of the frames that the networks see, drawn for each frame."""
HEALTH_PAIRS = 32
"""Largest number of pairs of a batch for health metrics."""
Frames = Float[Tensor, "batch 3 height width"]


@dataclass(frozen=True, kw_only=True)
class PoodleConfig(MethodConfig):
    """Configuration of the objective; the defaults are those of table 9, at 224 pixels."""

    name: Literal["poodle"] = "poodle"
    encoder: SpatialDecoderConfig = field(default_factory=SpatialDecoderConfig)
    hidden: int = 4096
    """Width of projectors and predictors."""
    projection: int = 256
    """Channels of their outputs."""
    size: tuple[int, int] = (224, 224)
    """Height and width of the frames in pixels."""
    frame_area: tuple[float, float] = (0.16, 0.45)
    """Area of the crop that is common to both frames, as a fraction of the frame."""
    subcrops: SubcropConfig = field(default_factory=SubcropConfig)
    affine: AffineRange = field(default_factory=AffineRange)
    """Rotation, scale and flip, drawn apart for student and teacher."""
    flow: FlowConfig = field(default_factory=FlowConfig)
    warp_order: WarpOrder = "consistent"
    """Undo the teacher's affine view, then follow the flow; or the reverse, as in PooDLe's code,
    where the flow is taken for that of the rotated image."""
    loss_stride: int = 1
    """Distance in pixels of the points at which the dense loss is evaluated; 1 in PooDLe."""
    dense_weight: float = 0.5
    """Weight of the dense loss; the pooled loss has the rest to 1."""
    teacher_momentum: float = 0.996
    """EMA momentum at the start; rises to 1 along a cosine."""

    def __post_init__(self) -> None:
        low, high = self.frame_area
        rules = {
            f"dense_weight = {self.dense_weight}; give 0 to 1": 0 <= self.dense_weight <= 1,
            f"teacher_momentum = {self.teacher_momentum}; give 0 to 1": (
                0 <= self.teacher_momentum <= 1
            ),
            f"frame_area = {self.frame_area}; give 0 < low <= high <= 1": 0 < low <= high <= 1,
            f"loss_stride = {self.loss_stride}; give 1 to the shorter side of the frames": (
                1 <= self.loss_stride <= min(self.size)
            ),
            "hidden and projection: give 1 or more": min(self.hidden, self.projection) >= 1,
            f"frame_area = {self.frame_area}: recorded flow is of whole frames; give 1 1": (
                self.flow.source != "recorded" or low == 1
            ),
        }
        require("method", rules)
        self.subcrops.check_fits(self.size)

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: frames of 64 pixels, a ResNet of one block per stage."""
        return cls(
            encoder=SpatialDecoderConfig(resnet=ResNetConfig(blocks=(1, 1, 1, 1), width=16)),
            hidden=256,
            projection=64,
            size=(64, 64),
            subcrops=SubcropConfig(count=2, size=(64, 64), area=(0.1, 0.4)),
            flow=FlowConfig(source="pixels"),
            loss_stride=4,
        )

    def spec(self) -> ClipSpec:
        """Return the views: one region of both frames, plain for the flow and distorted."""
        height, width = self.size
        # The whole frame is squeezed to the size; a crop has its aspect ratio.
        aspect = width / height
        crop = Box(area=self.frame_area, aspect=(aspect, aspect))
        plain = View(size=self.size, region="frame")
        return ClipSpec(
            num_frames=2,
            regions={"frame": Region(box=None if self.frame_area[0] == 1 else crop)},
            views={"plain": plain, "distorted": replace(plain, photometric=(DISTORTED,))},
            signals=self.flow.signals,
        )


class Branch(nn.Module):
    """Encoder with its two projectors; the teacher is an EMA of it."""

    def __init__(self, config: PoodleConfig) -> None:
        super().__init__()
        self.encoder = SpatialDecoder(config.encoder)
        width = self.encoder.width
        self.dense_projector = mlp(width, config.hidden, config.projection)
        self.pooled_projector = mlp(width, config.hidden, config.projection)

    def dense(self, images: Frames) -> Float[Tensor, "batch dim rows columns"]:
        """Return the projected decoded map."""
        return self.dense_projector(self.encoder.maps(images, (-1,))[0])

    def pooled(self, images: Frames) -> Float[Tensor, "batch dim 1 1"]:
        """Return the projected mean of the top map of the backbone."""
        return self.pooled_projector(self.encoder(images)[..., None, None])


class Poodle(Method):
    """Dense loss between flow-aligned features, and pooled loss between flow-centred crops.

    Batch norms of student and teacher normalise by the batch; each has its own running statistics,
    which evaluations use.
    """

    Config: ClassVar[type[MethodConfig]] = PoodleConfig
    about = About(
        paper="Wang et al., ICLR 2025, arXiv 2408.11208",
        code_licence="none stated",
        weights_licence="none stated",
        weights="PooDLe checkpoints, ResNet or with decoder",
        sample="2 frames",
        encoder_megaparameters=23.51,
        other_megaparameters=35.19,
        giga_multiply_adds=246.2,
        paper_giga_multiply_adds=202.3,
        activation_megabytes=1272,
    )

    def __init__(self, config: PoodleConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = config.spec()
        self.student = Branch(config)
        self.teacher = deepcopy(self.student).requires_grad_(False)
        self.teacher.encoder.set_drop_path(0.0)
        self.dense_predictor = mlp(config.projection, config.hidden, config.projection)
        self.pooled_predictor = mlp(config.projection, config.hidden, config.projection)
        # No module, so that its weights are neither trained nor saved.
        self.flow = external_flow(config.flow)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Backbones of student and EMA teacher, and both with the spatial decoder."""
        student, teacher = self.student.encoder, self.teacher.encoder
        return {
            "student": student.backbone,
            "teacher": teacher.backbone,
            "student_decoder": student,
            "teacher_decoder": teacher,
        }

    def start_from(self, network: str) -> None:
        """Load the weights of a backbone into student and teacher; the decoder stays fresh.

        Args:
            network: As for `--network`.

        Raises:
            MidwayError: No such network, or its sizes differ.

        """
        for encoder in (self.student.encoder.backbone, self.teacher.encoder.backbone):
            encoder.load_state_dict(encoder_state(network, like=encoder))

    def loss(self, clips: Clips) -> StepOutput:
        """Return the weighted dense and pooled losses, averaged over both orders of the frames."""
        with torch.no_grad():
            flow = self.flow(
                denormalise(clips.views["plain"][:, 0]),
                seconds=clips.seconds,
                signals=clips.signals,
            )
        # The first half of the batch goes from the first frame to the second, the rest back.
        forward, backward = (known(each) for each in _both_orders(flow))  # (2 * batch, 2, H, W)
        source, target = _both_orders(clips.views["distorted"][:, 0])  # (2 * batch, 3, H, W)
        dense, share = self._dense(source, target, forward, backward)
        pooled = self._pooled(source, target, forward)
        weight = self.config.dense_weight
        logs = {
            "dense_loss": dense.detach(),
            "pooled_loss": pooled.detach(),
            "visible_share": share,
        }
        return StepOutput(loss=weight * dense + (1 - weight) * pooled, logs=logs)

    def _dense(
        self, source: Frames, target: Frames, forward: Tensor, backward: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return the flow-equivariance loss, and the share of points that count in it."""
        config = self.config
        own, others = (
            AffineView.draw(config.affine, len(source), config.size, source.device)
            for _ in range(2)
        )
        # Maps of (2 * batch, projection, H / 8, W / 8) for a ResNet.
        predicted = self.dense_predictor(self.student.dense(own.render(source)))
        with torch.no_grad():
            seen = self.teacher.dense(others.render(target))
        return equivariance_loss(
            predicted,
            seen,
            own=own,
            others=others,
            forward=forward,
            backward=backward,
            order=config.warp_order,
            every=config.loss_stride,
        )

    def _pooled(self, source: Frames, target: Frames, forward: Tensor) -> Tensor:
        config = self.config.subcrops
        # In the frames without affine views, for which the flow holds.
        crops = draw_subcrops(config, forward)
        here = cut(source, crops.source, config.size)  # (2 * batch, crops, 3, rows, columns)
        # Both frames are cut, because which one it is depends on the values of the flow.
        both = cut(torch.cat([source, target], dim=1), crops.target, config.size)
        still, moved = both.chunk(2, dim=2)
        there = torch.where(crops.moved[..., None, None, None], moved, still)
        predicted = self.pooled_predictor(self.student.pooled(here.flatten(0, 1)))
        with torch.no_grad():
            seen = self.teacher.pooled(there.flatten(0, 1))
        return squared_distance(predicted, seen).mean()

    def health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return rank and spread of the teacher's top map and decoded map."""
        frames = batch.render(self.spec).views["distorted"][:, 0, :HEALTH_PAIRS].flatten(0, 1)
        encoder = self.teacher.encoder
        found: dict[str, Tensor] = {}
        levels = (encoder.depth - 1, encoder.depth)
        for level, features in zip(levels, encoder.maps(frames, levels), strict=True):
            cells = features.flatten(2).transpose(1, 2).flatten(0, 1)  # (cells, width)
            found[f"rank_{level}"] = effective_rank(cells)
            found[f"spread_{level}"] = spread(cells)
        return found

    def after_step(self, progress: Progress) -> None:
        """Move the teacher; its batch norms' running statistics are its own."""
        momentum = cosine(progress.fraction, self.config.teacher_momentum, 1.0)
        update_ema(self.teacher.parameters(), self.student.parameters(), momentum)


def mlp(width: int, hidden: int, out: int) -> nn.Sequential:
    """Return a projector or predictor of 1 x 1 convolutions, with PooDLe's tensor names."""
    return nn.Sequential(
        nn.Conv2d(width, hidden, kernel_size=1),
        nn.BatchNorm2d(hidden),
        nn.ReLU(),
        nn.Conv2d(hidden, out, kernel_size=1),
    )


def _both_orders(frames: Tensor) -> tuple[Tensor, Tensor]:
    """Return first and second frames in both orders: (2, batch, ...) -> (2 * batch, ...) each."""
    return frames.flatten(0, 1), frames.flip(0).flatten(0, 1)


METHOD = Poodle
