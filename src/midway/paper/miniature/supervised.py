"""Supervised arm: the same encoder and frames as in other arms, trained with the frames' labels."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from midway.data.sampling.ahead import Batch
from midway.data.segmentation.classes import IGNORE
from midway.evals.probes.recognition import LabelledFrames
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.nn.images import normalise
from midway.nn.linear import Linear
from midway.train.objective import Objective, StepOutput


@dataclass(frozen=True, kw_only=True)
class LabelledBatch(Batch):
    """Crops with their labels."""

    images: Tensor
    """ImageNet-normalised, shape (B, 3, height, width)."""
    classes: Tensor
    """Class ids or `IGNORE`, shape (B, height, width)."""

    def __len__(self) -> int:
        return len(self.images)


class Supervised(Objective):
    """Cross-entropy of pixel classes; a linear head reads a patch's pixels from its token."""

    def __init__(self, config: EncoderConfig, num_classes: int) -> None:
        super().__init__()
        self.encoder = VisionTransformer(config)
        self.head = Linear(config.width, config.patch_size**2 * num_classes)

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The encoder; there is no teacher."""
        return {"student": self.encoder}

    def forward(self, batch: LabelledBatch) -> StepOutput:
        """Return the mean cross-entropy over the labelled pixels of a batch."""
        (features,) = self.encoder.maps(batch.images, (-1,))
        # (B, rows, columns, classes * patch * patch) -> (B, classes, height, width)
        patches = self.head(features.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        logits = F.pixel_shuffle(patches, self.encoder.stride)
        return StepOutput(loss=F.cross_entropy(logits.float(), batch.classes, ignore_index=IGNORE))


class LabelledCrops:
    """Loader of random crops, flipped at random; a step's number and the seed determine them.

    Args:
        frames: Labelled frames.
        size: Height and width of the crops, which keep the scale of the frames.
        batch_size: Crops of a step.
        seed: Seed of all crops.

    """

    def __init__(
        self, frames: LabelledFrames, *, size: tuple[int, int], batch_size: int, seed: int
    ) -> None:
        self.frames, self.size, self.seed = frames, size, seed
        self.samples_per_step = batch_size

    @property
    def steps_per_epoch(self) -> int:
        """Number of steps that draw as many crops as there are frames, at least 1."""
        return max(1, len(self.frames.images) // self.samples_per_step)

    @property
    def epochs_per_step(self) -> float:
        """Crops of a step divided by the number of frames."""
        return self.samples_per_step / len(self.frames.images)

    def batches(self, start_step: int, stop_step: int) -> Iterator[LabelledBatch]:
        """Yield the batches of these steps."""
        for step in range(start_step, stop_step):
            generator = torch.Generator().manual_seed(2**20 * self.seed + step)
            crops = [self._crop(generator) for _ in range(self.samples_per_step)]
            images, classes = (torch.stack(parts) for parts in zip(*crops, strict=True))
            yield LabelledBatch(images=normalise(images.permute(0, 3, 1, 2) / 255), classes=classes)

    def _crop(self, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return an image (height, width, 3) and its classes (height, width)."""
        images, classes = self.frames.images, self.frames.classes
        ends = (len(images), *(classes.shape[1 + axis] - self.size[axis] + 1 for axis in (0, 1)), 2)
        number, top, left, flip = (int(torch.randint(end, (), generator=generator)) for end in ends)
        place = (number, slice(top, top + self.size[0]), slice(left, left + self.size[1]))
        # Columns are the second axis of both.
        axes = [1] if flip else []
        return images[place].flip(axes), classes[place].flip(axes)
