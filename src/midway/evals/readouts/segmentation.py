"""Segmentation readout: training objective of a head on a frozen or finetuned encoder."""

from collections import defaultdict
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass, replace
from math import inf
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midway.config import require
from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.loader import SegmentationBatch
from midway.data.segmentation.views import as_network_input
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import VisionTransformer
from midway.models.heads.upernet import NUM_MAPS, LinearReadout, UperNet
from midway.train.objective import Objective, ParameterGroup, StepOutput, parameter_groups

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@dataclass(frozen=True, kw_only=True)
class ReadoutConfig:
    """Head, encoder levels, and finetuning of the encoder."""

    kind: Literal["linear", "upernet"]
    levels: tuple[int, ...]
    """Input levels, 1-based; negative ones count from the top. A linear head on one level is
    FlowE's, on several it is iBOT's; UperNet takes four, from low to high."""
    frozen: bool = True
    """If True, only the head is trained."""
    drop_path: float = 0.0
    """Stochastic depth rate of a finetuned encoder."""
    layer_decay: float = 1.0
    """Layer-wise learning rate decay of a finetuned encoder."""
    auxiliary_weight: float = 0.4
    """Weight of the loss of UperNet's auxiliary head."""

    def __post_init__(self) -> None:
        rules = {
            "levels: give one or more": bool(self.levels),
            f"levels: UperNet takes {NUM_MAPS}, not {len(self.levels)}; one may be given twice": (
                self.kind == "linear" or len(self.levels) == NUM_MAPS
            ),
            "drop_path: give 0 or more, and below 1": 0 <= self.drop_path < 1,
            "layer_decay: give a number above 0, and 1 at most": 0 < self.layer_decay <= 1,
            "auxiliary_weight: give 0 or more": 0 <= self.auxiliary_weight < inf,
        }
        require("readout", rules)


class SegmentationReadout(Objective):
    """Cross-entropy loss of a head on an encoder's feature maps.

    The loss is averaged over all pixels, ignored ones included, as in mmsegmentation.

    Args:
        encoder: Encoder; trained too if `config.frozen` is False.
        config: Head, levels and finetuning.
        num_classes: Number of classes of the dataset.

    Raises:
        MidwayError: The encoder lacks a level, or cannot be finetuned.

    """

    def __init__(self, encoder: Encoder, config: ReadoutConfig, num_classes: int) -> None:
        super().__init__()
        self.config = config
        self.encoder = encoder
        encoder.resolved(config.levels)
        # Set in both cases, because the teacher's encoder, the default, is loaded frozen.
        encoder.requires_grad_(not config.frozen)
        if not config.frozen:
            encoder.set_drop_path(config.drop_path)
        widths = encoder.widths(config.levels)
        is_pyramid = len({*encoder.strides(config.levels)}) > 1
        if config.kind == "linear":
            self.head = LinearReadout(sum(widths), num_classes)
        else:
            self.head = UperNet(encoder.width, num_classes, widths if is_pyramid else None)
        self.train()

    def train(self, mode: bool = True) -> "SegmentationReadout":
        """Set the training mode; a frozen encoder stays in evaluation mode."""
        super().train(mode)
        if self.config.frozen:
            self.encoder.eval()
        return self

    def forward(self, batch: SegmentationBatch) -> StepOutput:
        """Augment and normalise a batch of crops on its device, and compute the loss."""
        images = as_network_input(batch.images, batch.distortion, batch.sizes)
        labels = batch.labels.long()
        logits, *auxiliary = self.outputs(images)
        loss = _cross_entropy(logits, labels)
        labelled = labels != IGNORE
        right = (logits.detach().argmax(1) == labels) & labelled
        accuracy = right.sum() / labelled.sum()  # NaN without a labelled pixel
        logs = {"head_loss": loss.detach(), "pixel_accuracy": accuracy}
        for each in auxiliary:
            loss = loss + self.config.auxiliary_weight * _cross_entropy(each, labels)
        return StepOutput(loss=loss, logs=logs)

    def outputs(self, images: Tensor) -> list[Tensor]:
        """Return logits at the size of the images; in training mode, those of auxiliary heads too.

        Args:
            images: ImageNet-normalised, shape (B, 3, H, W). Sides that the encoder's stride does
                not divide are padded with the mean colour.

        Returns:
            Logits of the main head first, each of shape (B, classes, H, W) in float32.

        """
        height, width = images.shape[-2:]
        stride = self.encoder.stride
        images = F.pad(images, (0, -width % stride, 0, -height % stride))
        with torch.no_grad() if self.config.frozen else nullcontext():
            maps = self.encoder.maps(images, self.config.levels)
        size = images.shape[-2:]
        return [
            F.interpolate(logits.float(), size, mode="bilinear")[..., :height, :width]
            for logits in self.head(maps)
        ]

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The encoder, finetuned or frozen."""
        return {"encoder": self.encoder}

    def renamed(self, state_dict: Mapping[str, Any]) -> Mapping[str, Any]:
        """Rename a ViT's tensors of version 0.1, which prefixed them with ``encoder.vit.``."""
        if not isinstance(self.encoder, VisionTransformer):
            return state_dict
        old, new = "encoder.vit.", "encoder."
        return {
            new + name.removeprefix(old) if name.startswith(old) else name: value
            for name, value in state_dict.items()
        }

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> Any:
        """Load a state dict of this version or of 0.1."""
        return super().load_state_dict(self.renamed(state_dict), strict, assign)

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the groups of the head and, if it is finetuned, of each layer of the encoder."""
        head = parameter_groups(self.head, "head")
        if self.config.frozen:
            return head
        encoder = parameter_groups(self.encoder, "encoder")
        return [part for group in encoder for part in self._by_layer(group)] + head

    def _by_layer(self, group: ParameterGroup) -> list[ParameterGroup]:
        """Split a group by layer; the learning rate decays from the top layer to the bottom."""
        encoder = self.encoder
        layer_of = {id(p): encoder.layer_of(name) for name, p in encoder.named_parameters()}
        layers: dict[int, list[nn.Parameter]] = defaultdict(list)
        for parameter in group.parameters:
            layers[layer_of[id(parameter)]].append(parameter)
        return [
            replace(
                group,
                name=f"{group.name}/layer_{layer}",
                parameters=parameters,
                lr_scale=self.config.layer_decay ** (encoder.depth + 1 - layer),
            )
            for layer, parameters in sorted(layers.items())
        ]


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    total = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="sum")
    return total / labels.numel()


def synchronise_norms(readout: SegmentationReadout, fabric: "Fabric") -> None:
    """Convert the trained batch norms of a readout to synchronised ones.

    Raises:
        MidwayError: There are batch norms, and the processes run on CPUs.
    """
    trained = readout.head if readout.config.frozen else readout
    if not any(isinstance(part, nn.BatchNorm2d) for part in trained.modules()):
        return
    if fabric.device.type != "cuda":
        raise MidwayError(
            "batch norm: cannot be synchronised between processes on a CPU; train UperNet in "
            "one process there"
        )
    nn.SyncBatchNorm.convert_sync_batchnorm(trained)
