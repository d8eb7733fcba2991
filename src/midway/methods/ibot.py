"""iBOT: DINO on the class tokens of single frames, and self-distillation of masked patches."""

from dataclasses import dataclass, field
from typing import ClassVar, Literal, Self

import torch
from torch import Tensor, nn

from midway.config import require
from midway.data.sampling.loader import ClipBatch
from midway.data.views.pair_crops import MultiCropConfig
from midway.data.views.render import Clips
from midway.methods.base import About, MethodConfig, TeacherMethod
from midway.models.dino import DinoNetwork, HeadConfig, update_all
from midway.models.encoders.vit import EncoderConfig
from midway.nn.losses.dino import Prototypes, TargetsConfig, TeacherTargets, multi_crop_loss
from midway.nn.losses.patches import masked_patch_loss
from midway.nn.masking import (
    Index,
    Mask,
    block_mask,
    count_masked,
    gather_tokens,
    kept_and_masked,
)
from midway.train.distillation import (
    HEALTH_SAMPLES,
    TeacherConfig,
    few,
    invariance_condition,
    invariance_health,
)
from midway.train.objective import Progress, StepOutput

RELEASE_TARGETS = TargetsConfig(teacher_temperature=0.07, temperature_warmup_epochs=30.0)
"""Teacher's temperature of the release, for class tokens and patches: 0.04 to 0.07 in 30 epochs."""


@dataclass(frozen=True, kw_only=True)
class IbotConfig(TeacherConfig, MethodConfig):
    """Configuration of iBOT; the defaults are those of its released ViT-S."""

    name: Literal["ibot"] = "ibot"
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    head: HeadConfig = field(
        default_factory=lambda: HeadConfig(num_prototypes=8192, prototype_init="uniform")
    )
    views: MultiCropConfig = field(
        default_factory=lambda: MultiCropConfig(
            num_local=10,
            initial_area="frame",
            global_area=(0.25, 1.0),
            local_area=(0.05, 0.25),
        )
    )
    targets: TargetsConfig = field(default_factory=lambda: RELEASE_TARGETS)
    """Targets of the class tokens."""
    patch_targets: TargetsConfig = field(default_factory=lambda: RELEASE_TARGETS)
    """Targets of the masked patches, with a centre of their own."""
    patch_weight: float = 1.0
    """Weight of the patch loss beside the class loss."""
    share_prototypes: bool = True
    """If True, class tokens and patches have the same prototypes, as in the release."""
    p_mask: float = 0.5
    """Probability that a global crop of the student is masked."""
    mask_ratio: tuple[float, float] = (0.1, 0.5)
    """Range of the masked fraction of such a crop, uniform."""
    momentum_clock: Literal["steps", "samples"] = "steps"

    def __post_init__(self) -> None:
        super().__post_init__()
        low, high = self.mask_ratio
        patches = self.grid[0] * self.grid[1]
        rules = {
            f"p_mask = {self.p_mask}; give 0 to 1": 0 <= self.p_mask <= 1,
            f"mask_ratio = {self.mask_ratio}; give 0 <= low <= high <= 1, for 1 patch or more": (
                0 <= low <= high <= 1 and count_masked(patches, high) > 0
            ),
            f"patch_weight = {self.patch_weight}; give a weight above 0": self.patch_weight > 0,
        }
        require("method", rules)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of patches of a global crop."""
        height, width = self.views.global_size
        return height // self.encoder.patch_size, width // self.encoder.patch_size

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
                initial_area="frame",
                global_area=(0.25, 1.0),
                local_area=(0.05, 0.25),
            ),
            targets=TargetsConfig(),
            patch_targets=TargetsConfig(),
        )


class Ibot(TeacherMethod[DinoNetwork]):
    """Self-distillation of crops and masked patches of frames (Zhou et al., iBOT, ICLR 2022)."""

    Config: ClassVar[type[MethodConfig]] = IbotConfig
    about = About(
        paper="Zhou et al., ICLR 2022, arXiv 2111.07832",
        code_licence="Apache-2.0",
        weights_licence="Apache-2.0",
        weights="all files of the release, backbone alone or with heads",
        sample="1 frame",
        encoder_megaparameters=21.67,
        other_megaparameters=7.62,
        giga_multiply_adds=30.16,
        paper_giga_multiply_adds=35.3,
        activation_megabytes=277.7,
    )

    def __init__(self, config: IbotConfig) -> None:
        super().__init__()
        self.config = config
        self.spec = config.views.spec(num_frames=1)
        self.network = DinoNetwork(config.encoder, config.head, config.targets)
        self.patch_targets = TeacherTargets(config.head.num_prototypes, config.patch_targets)
        # Outside the encoder, which then opens as any ViT; decayed as in the release: two axes.
        self.mask_token = nn.Parameter(torch.empty(1, config.encoder.width))
        nn.init.trunc_normal_(self.mask_token, std=0.02)
        if not config.share_prototypes:
            head = config.head
            sizes = (head.bottleneck, head.num_prototypes, head.prototype_init)
            self.own_prototypes, self.own_teacher_prototypes = (Prototypes(*sizes) for _ in "st")
            self.own_teacher_prototypes.requires_grad_(False)
            update_all([(self.own_teacher_prototypes, self.own_prototypes)], 0.0)

    def loss(self, clips: Clips) -> StepOutput:
        """Return the class loss over all crops plus the patch loss over masked patches."""
        images = clips.views["globals"].flatten(0, 2)  # (2 * batch, 3, height, width)
        return self.masked_loss(clips, self.draw_masks(len(images)).to(images.device))

    def draw_masks(self, batch: int) -> Mask:
        """Draw the masks of the student's global crops, on the CPU; some are empty."""
        low, high = self.config.mask_ratio
        # "cpu" by name: the default device may be meta.
        chance = torch.rand(2, batch, device="cpu")
        ratios = (low + (high - low) * chance[0]) * (chance[1] < self.config.p_mask)
        return block_mask(ratios, self.config.grid)

    def masked_loss(self, clips: Clips, mask: Mask) -> StepOutput:
        """Return the loss for given masks.

        Args:
            clips: Samples with the views "globals" and "locals".
            mask: Masked patches of all global crops, crop by crop, shape (2 * batch, patches).

        """
        network, config = self.network, self.config
        images, local_crops = (clips.views[name].flatten(0, 2) for name in ("globals", "locals"))
        # As many patches of each crop as can be masked, the masked ones last: the head skips the
        # others, and no shape depends on the masks.
        chosen = kept_and_masked(mask, count_masked(mask.shape[1], config.mask_ratio[1]))[1]
        classes, patches = self._student(images, mask)
        # Two sizes of crops, so two passes; their class tokens share one pass of the head.
        student = network.head(torch.cat([classes, network.encoder(local_crops)]))
        student_patches = self._patch_prototypes()(
            network.head.project(gather_tokens(patches, chosen))
        )
        teacher, teacher_patches, mean = self._teacher(images, chosen)
        class_loss = multi_crop_loss(
            student.unflatten(0, (-1, len(clips))),
            network.dino_loss(teacher.unflatten(0, (-1, len(clips)))),
            temperature=config.targets.student_temperature,
            num_frames=1,
        )
        patch_loss = masked_patch_loss(
            student_patches,
            self.patch_targets(teacher_patches),
            mask.gather(1, chosen),
            temperature=config.patch_targets.student_temperature,
        )
        # The centres of this step must not contain its own logits.
        network.dino_loss.collect(teacher)
        self.patch_targets.collect(mean)
        logs = {"class_loss": class_loss.detach(), "patch_loss": patch_loss.detach()}
        return StepOutput(loss=class_loss + config.patch_weight * patch_loss, logs=logs)

    def health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return the health of the class loss, for crops without masks."""
        clips = few(batch.render(self.spec), HEALTH_SAMPLES)
        return invariance_health(self.network, clips, "same_and_cross")

    def starting_health(self, batch: ClipBatch) -> dict[str, Tensor]:
        """Return the measured and required correlation of head outputs, for class tokens."""
        return invariance_condition(self.network, batch.render(self.spec), "same_and_cross")

    def before_step(self, progress: Progress) -> None:
        """Set the teacher's temperatures."""
        super().before_step(progress)
        self.patch_targets.set_temperature(progress.epoch)

    def after_backward(self, progress: Progress) -> None:
        """Drop the gradients of the prototypes during the first epochs."""
        super().after_backward(progress)
        if self.config.freezes_last_layer(progress):
            self._patch_prototypes().zero_grad(set_to_none=True)

    def after_step(self, progress: Progress) -> None:
        """Update the centres of the teacher's logits, then the teacher."""
        super().after_step(progress)
        self.patch_targets.move_center()
        if not self.config.share_prototypes:
            update_all(
                [(self.own_teacher_prototypes, self.own_prototypes)],
                self.config.momenta(progress)[1],
            )

    def _student(self, images: Tensor, mask: Mask) -> tuple[Tensor, Tensor]:
        """Return class tokens (batch, dim) and patches (batch, patches, dim) of masked crops."""
        encoder = self.network.encoder
        patches = encoder.patch_embed(images)
        # The mask token stands for the content of a patch; positions are added to it.
        masked = torch.where(mask[..., None], self.mask_token, patches)
        tokens = encoder.with_positions(masked, encoder.grid(images))
        features = encoder.run_blocks(tokens, (-1,))[0]
        return features[:, 0], features[:, -mask.shape[1] :]

    @torch.no_grad()
    def _teacher(self, images: Tensor, chosen: Index) -> tuple[Tensor, Tensor, Tensor]:
        """Return the logits of class tokens and chosen patches, and the mean over all patches.

        Their shapes are (batch, prototypes), (batch, chosen, prototypes) and (batch, prototypes).
        """
        teacher = self.network.teacher
        unit = teacher.head.project(teacher.encoder.levels(images, (-1,))[0])
        classes, patches = unit[:, 0], unit[:, 1:]
        prototypes = self._patch_prototypes(of_teacher=True)
        # Logits are linear in the unit vectors, so the mean of all of them needs one product.
        mean = prototypes(patches.mean(1))
        return teacher.head.last_layer(classes), prototypes(gather_tokens(patches, chosen)), mean

    def _patch_prototypes(self, *, of_teacher: bool = False) -> Prototypes:
        if self.config.share_prototypes:
            network = self.network
            return (network.teacher.head if of_teacher else network.head).last_layer
        return self.own_teacher_prototypes if of_teacher else self.own_prototypes


METHOD = Ibot
