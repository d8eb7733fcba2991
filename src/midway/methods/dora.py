"""DoRA: discover the objects of a clip by attention, and learn from frames that show one of them.

Venkataramanan et al., "Is ImageNet worth 1 video? Learning strong image encoders from 1 long
unlabelled video", ICLR 2024. Quirks of the release are options, off by default
(docs/methods/dora.md).
"""

from dataclasses import dataclass, field
from math import inf, log
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from midway.config import check_at_least, require
from midway.data.sampling.loader import ClipBatch
from midway.data.views.boxes import Box
from midway.data.views.pair_crops import OFTEN_BLURRED, P_FLIP
from midway.data.views.photometric import Photometric
from midway.data.views.render import Clips
from midway.data.views.spec import ClipSpec, Region, View
from midway.methods.base import About, MethodConfig, TeacherMethod
from midway.models.dino import DinoNetwork, HeadConfig
from midway.models.encoders.vit import EncoderConfig, TopAttention
from midway.nn.losses.dino import TargetsConfig, full_precision
from midway.nn.objects import attended_prototypes, mask_images, object_masks, refined_prototypes
from midway.train.distillation import HEALTH_SAMPLES, TeacherConfig, few
from midway.train.health import feature_health
from midway.train.objective import ParameterGroup, StepOutput, parameter_groups

SOMETIMES_BLURRED = Photometric(p_blur=0.1)


@dataclass(frozen=True, kw_only=True)
class DoraViewsConfig:
    """Crops of a clip; sizes are (height, width) in pixels, areas are fractions."""

    num_frames: int = 8
    global_size: tuple[int, int] = (224, 224)
    local_size: tuple[int, int] = (112, 112)
    num_local: int = 6
    """Number of local crops per frame."""
    clip_area: tuple[float, float] = (0.2, 1.0)
    """Area of the clip's crop, which contains all others, as a fraction of the frame."""
    clip_side: int = 300
    """Shorter side to which the clip's crop is shrunk, in pixels."""
    global_area: tuple[float, float] = (0.4, 1.0)
    """Area of the global crop, as a fraction of the clip's crop."""
    local_area: tuple[float, float] = (0.05, 0.4)
    """Area of a local crop, as a fraction of the clip's crop."""
    distort_colours: bool = True
    """If True, jitter the colours and blur, separately in each frame."""

    def __post_init__(self) -> None:
        check_at_least("views", self, num_frames=1, num_local=1, clip_side=1)

    def spec(self) -> ClipSpec:
        """Return the regions and views: one "global" crop of all frames, and "locals" of each."""
        views = {
            "global": View(
                size=self.global_size,
                region="clip",
                box=Box(area=self.global_area),
                aligned=True,
                p_flip=P_FLIP,
                photometric=self._photometric(SOMETIMES_BLURRED),
            ),
            "locals": View(
                size=self.local_size,
                region="clip",
                box=Box(area=self.local_area),
                count=self.num_local,
                photometric=self._photometric(OFTEN_BLURRED),
            ),
        }
        clip = Region(box=Box(area=self.clip_area), short_side=self.clip_side)
        return ClipSpec(num_frames=self.num_frames, regions={"clip": clip}, views=views)

    def _photometric(self, recipe: Photometric) -> tuple[Photometric, ...]:
        return (recipe,) if self.distort_colours else ()


@dataclass(frozen=True, kw_only=True)
class DoraConfig(TeacherConfig, MethodConfig):
    """Configuration of the objective; the defaults are the paper's ViT-S."""

    name: Literal["dora"] = "dora"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(default_factory=lambda: HeadConfig(prototype_init="uniform"))
    momentum_clock: Literal["steps", "samples"] = "steps"
    views: DoraViewsConfig = field(default_factory=DoraViewsConfig)
    num_objects: int = 3
    """Objects of a clip; each is found by a head of the last block, drawn at random per step."""
    sinkhorn_temperature: float = 0.05
    """Divisor of the similarities of patches and prototypes."""
    sinkhorn_rounds: int = 30
    """Rounds of Sinkhorn-Knopp, in logarithms; in the release, in linear float32."""
    threshold_over: Literal["image", "batch"] = "image"
    """Patches whose mean attention is the threshold of a mask: those of the image, or those of the
    whole batch as in the release, where masks depend on the other clips."""
    object_weights: Literal["equal", "falling"] = "equal"
    """Weights of the objects: equal, or those of the release, which carries the loss of an object,
    divided by the number of frames, over to the next: 1.14, 1.125 and 1 for 8 frames."""
    skip_first_local: bool = False
    """If True, leave the first local crop of each frame out of the loss, as the release does."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_at_least("method", self, num_objects=1, sinkhorn_rounds=0)
        heads, temperature = self.encoder.heads, self.sinkhorn_temperature
        rules = {
            f"num_objects = {self.num_objects} of {heads} heads; give as many as heads or fewer": (
                self.num_objects <= heads
            ),
            f"sinkhorn_temperature = {temperature}; give a number above 0": 0 < temperature < inf,
            "skip_first_local with one local crop; give views.num_local of 2 or more": (
                self.views.num_local > 1 or not self.skip_first_local
            ),
        }
        require("method", rules)

    @classmethod
    def tiny(cls) -> Self:
        """Return a small configuration: four frames of 64 pixels, two objects, width 96."""
        encoder = EncoderConfig.tiny()
        return cls(
            encoder=encoder,
            head=HeadConfig.tiny("uniform"),
            views=DoraViewsConfig(
                num_frames=4,
                global_size=(64, 64),
                local_size=(32, 32),
                num_local=2,
                clip_side=96,
                local_area=(0.15, 0.5),
            ),
            num_objects=2,
            # With a centre of 0, the first targets are nearly the same for all clips.
            targets=TargetsConfig(center_start="first_batch"),
        )


class Dora(TeacherMethod[DinoNetwork]):
    """Self-distillation from whole frames to frames masked to one object, and to local crops."""

    Config: ClassVar[type[MethodConfig]] = DoraConfig
    about = About(
        paper="Venkataramanan et al., ICLR 2024, arXiv 2310.08584",
        code_licence="none stated",
        weights_licence="none stated",
        weights="backbones of the release",
        sample="8 frames",
        encoder_megaparameters=21.67,
        other_megaparameters=22.35,
        giga_multiply_adds=191.53,
        paper_giga_multiply_adds=202.1,
        activation_megabytes=2330.5,
    )

    def __init__(self, config: DoraConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = config.views.spec()
        self.network = DinoNetwork(config.encoder, config.head, config.targets)

    def loss(self, clips: Clips) -> StepOutput:
        """Return the mean of the masked and of the local loss."""
        config, network = self.config, self.network
        first = int(config.skip_first_local)
        frames = clips.views["global"][:, 0]  # (frames, batch, 3, height, width)
        local = clips.views["locals"][:, first:]  # (frames, crops, batch, 3, height, width)
        with torch.no_grad():
            seen = network.teacher.encoder.top_attention(frames.flatten(0, 1))
            logits = network.teacher.head(seen.cls).unflatten(0, frames.shape[:2])
            targets = network.dino_loss(logits)  # (frames, batch, prototypes)
            masks = self.object_masks(seen, len(clips))  # (objects, frames, batch, patches)
        # The centre of this step must not contain its own logits.
        network.dino_loss.collect(logits)
        masked = mask_images(frames, masks, config.encoder.patch_size)
        # Two sizes of crops, so two passes; their class tokens share one pass of the head.
        classes = [network.encoder(crops.flatten(0, 2)) for crops in (masked, local)]
        student = network.head(torch.cat(classes)).split([len(each) for each in classes])
        of_masked = self._cross_entropy(student[0].unflatten(0, masked.shape[:3]), targets)
        of_local = self._cross_entropy(student[1].unflatten(0, local.shape[:3]), targets[:, None])
        weights = self.object_weights(of_masked.device)  # (objects,)
        masked_loss = (weights * of_masked.mean((1, 2))).mean()
        # Each object is paired with the local crops of all frames once more.
        local_loss = weights.mean() * of_local.mean()
        logs = {
            "masked_loss": masked_loss.detach(),
            "local_loss": local_loss.detach(),
            "mask_area": masks.float().mean(),
            "empty_masks": (~masks.any(-1)).float().mean(),
        }
        return StepOutput(loss=(masked_loss + local_loss) / 2, logs=logs)

    def object_masks(
        self, seen: TopAttention, batch: int
    ) -> Bool[Tensor, "objects frames batch patches"]:
        """Find objects in the first frame of each clip, and track them through all frames.

        Args:
            seen: Output of the teacher for the frames of all clips, in the order (frame, clip).
            batch: Number of clips.

        """
        config, first = self.config, slice(batch)
        # The same heads for all clips of the batch, as in the release.
        heads = torch.randperm(config.encoder.heads, device=seen.keys.device)[: config.num_objects]
        prototypes = attended_prototypes(seen.queries[first], seen.cls_attention[first], heads)
        prototypes = refined_prototypes(
            seen.patches[first],
            prototypes,
            temperature=config.sinkhorn_temperature,
            rounds=config.sinkhorn_rounds,
        )
        keys = seen.keys.unflatten(0, (-1, batch))  # (frames, batch, heads, patches, head_dim)
        return object_masks(prototypes, keys, threshold_over=config.threshold_over)

    def object_weights(self, device: torch.device) -> Float[Tensor, " objects"]:
        """Return the weights of the objects' losses."""
        count = self.config.num_objects
        if self.config.object_weights == "equal":
            return torch.ones(count, device=device)
        # The sum over T frames starts from the mean of the object before it, so that object j of K
        # counts 1 + 1/T + ... + T^-(K - 1 - j) times.
        powers = (1 / self.spec.num_frames) ** torch.arange(count, device=device)
        return powers.cumsum(0).flip(0)

    def health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return metrics of the teacher in the first frames.

        These are effective rank and spread of its patches, and the mean entropy of the targets as a
        fraction of log(prototypes) (`dino_entropy`).
        """
        network, clips = self.network, few(batch.render(self.spec), HEALTH_SAMPLES)
        seen = network.teacher.encoder.top_attention(clips.views["global"][0, 0])
        targets = network.dino_loss(network.teacher.head(seen.cls))  # (clips, prototypes)
        entropy = torch.special.entr(targets).sum(-1).mean() / log(targets.shape[-1])
        # (clips, patches, dim) -> (clips * patches, dim)
        found = feature_health(seen.patches.flatten(0, 1), network.encoder.depth)
        return found | {"dino_entropy": entropy}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return groups of encoder and head."""
        network = self.network
        return [
            *parameter_groups(network.encoder, "encoder"),
            *parameter_groups(network.head, "head"),
        ]

    def _cross_entropy(
        self,
        student: Float[Tensor, "*crops prototypes"],
        targets: Float[Tensor, "*crops prototypes"],
    ) -> Float[Tensor, "*crops"]:
        """Return H(p, q) of each crop for raw logits; leading axes broadcast."""
        with full_precision(student):
            logits = student.float() / self.config.targets.student_temperature
            return logits.logsumexp(-1) - (targets * logits).sum(-1)


METHOD = Dora
