"""Segmentation by the nearest labelled patches."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Literal

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.images import SegmentationData
from midway.data.segmentation.loader import WholeImage
from midway.errors import MidwayError
from midway.evals.probes.linear import class_shares
from midway.evals.readouts.inference import classes_at
from midway.models.encoders.base import Encoder
from midway.models.weights.sources import EncoderSource
from midway.nn.device import Accelerator

QUERIES_AT_ONCE = 128
"""Patches compared with the whole memory at a time, by each thread."""
MAX_THREADS = 16
"""Images in work at a time, for the sake of memory."""


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """A nearest-neighbour readout and what it reads."""

    protocol: str
    """The dataset's name with its scales."""
    encoder: Annotated[EncoderSource, tyro.conf.OmitArgPrefixes] = field(
        default_factory=EncoderSource
    )
    data: SegmentationData
    """Images are taken whole, at the test scale, in training and test alike."""
    level: int = -1
    """Level whose patches are compared; -1 is the top."""
    neighbours: int = 30
    temperature: float = 0.02
    """Of the softmax over cosines that weighs the neighbours' votes."""
    memory_size: int = 65_536
    """Patches in the memory at most, equally many of each training image."""
    seed: int = 0
    """Of what is drawn into the memory, and of fresh weights."""
    accelerator: Accelerator = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Of the encoder; neighbours are searched in float32."""
    folder: Path | None = None
    """Where ``results.json`` and ``confusion.png`` are written, if anywhere."""

    def __post_init__(self) -> None:
        if min(self.neighbours, self.memory_size) < 1 or self.temperature <= 0:
            raise MidwayError(
                "neighbours and memory_size must be 1 or more and temperature above 0; change "
                "what is not"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """Labelled patches."""

    mean: Tensor
    """Of the features before it was taken from them, shape (dim,)."""
    features: Tensor
    """Less their mean and of unit length, shape (patches, dim)."""
    shares: Tensor
    """Share of the patch that each class covers, shape (patches, classes)."""

    def vote(self, features: Tensor, *, neighbours: int, temperature: float) -> Tensor:
        """Classes of patches by the weighted vote of their nearest neighbours.

        Args:
            features: Of the patches asked for, of any length, shape (N, dim).
            neighbours: How many vote; all if the memory has fewer.
            temperature: Divides the cosines before the softmax that weighs the votes.

        Returns:
            Shape (N, classes).

        """
        queries = F.normalize(features.float() - self.mean, dim=1)
        return torch.cat(
            [self._vote(part, neighbours, temperature) for part in queries.split(QUERIES_AT_ONCE)]
        )

    def _vote(self, queries: Tensor, neighbours: int, temperature: float) -> Tensor:
        count = min(neighbours, len(self.features))
        cosines, indices = (queries @ self.features.T).topk(count, dim=1, sorted=False)
        weights = (cosines / temperature).softmax(1)
        return (weights.unsqueeze(2) * self.shares[indices]).sum(1)


def build_memory(
    encoder: Encoder,
    images: Iterable[WholeImage],
    config: KnnConfig,
    *,
    num_classes: int,
    per_image: int,
) -> Memory:
    """Labelled patches of training images, at most `per_image` of each.

    Where an image has more, they are drawn so that each of its classes has the same chance; of
    sky and road there is always enough.

    Raises:
        MidwayError: No patch has a label.

    """
    generator = torch.Generator().manual_seed(config.seed)
    features, shares = [], []
    device = next(encoder.parameters()).device
    (patch,) = encoder.strides((config.level,))
    mapped = partial(feature_map, encoder, config=config)
    for each, level_map in side_by_side(mapped, images, device):
        covered = _patch_shares(each, level_map, patch, num_classes)
        weights = (covered / covered.sum(0).clamp(min=1e-12)).sum(1)
        count = min(per_image, int(weights.count_nonzero()))
        if count:
            chosen = torch.multinomial(weights, count, generator=generator)
            features.append(level_map.flatten(1).T.float()[chosen.to(device)])
            shares.append(covered[chosen].to(device))
    if not features:
        raise MidwayError("nearest neighbours: no training pixel has a class; check the labels")
    remembered = torch.cat(features)
    mean = remembered.mean(0)
    return Memory(
        mean=mean, features=F.normalize(remembered - mean, dim=1), shares=torch.cat(shares)
    )


def predict(encoder: Encoder, memory: Memory, each: WholeImage, config: KnnConfig) -> Tensor:
    """Classes of an image at the size of its labels, of which nothing else counts.

    Args:
        encoder: Frozen.
        memory: What the image is compared with.
        each: The image.
        config: Level, neighbours and temperature.

    """
    image, labels = each.image, each.labels
    level_map = feature_map(encoder, each, config)
    votes = memory.vote(
        level_map.flatten(1).T, neighbours=config.neighbours, temperature=config.temperature
    )
    votes = votes.T.unflatten(1, level_map.shape[1:])
    (patch,), (rows, columns) = encoder.strides((config.level,)), level_map.shape[1:]
    whole = F.interpolate(votes[None], (rows * patch, columns * patch), mode="bilinear")[0]
    inside = whole[:, : image.shape[1], : image.shape[2]]
    return classes_at(inside, (labels.shape[0], labels.shape[1]))


@torch.no_grad()
def feature_map(encoder: Encoder, each: WholeImage, config: KnnConfig) -> Tensor:
    """Features of a whole image, filled up to whole patches, shape (dim, rows, columns)."""
    device = next(encoder.parameters()).device
    patch, image = encoder.stride, each.image
    filled = F.pad(image.to(device), (0, -image.shape[2] % patch, 0, -image.shape[1] % patch))
    is_mixed = config.precision == "bf16-mixed"
    with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
        return encoder.maps(filled[None], (config.level,))[0][0]


def side_by_side(
    function: Callable[[WholeImage], Tensor], images: Iterable[WholeImage], device: torch.device
) -> Iterator[tuple[WholeImage, Tensor]]:
    """Each image with what a function makes of it, in their order; on a CPU one image a core.

    Cores that share every operation wait for the slowest of them hundreds of times an image: on a
    machine that does anything else, that costs three times the work.
    """
    cores = torch.get_num_threads()
    count = min(cores, MAX_THREADS) if device.type == "cpu" else 1
    waiting: deque[tuple[WholeImage, Future[Tensor]]] = deque()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for each in images:
                waiting.append((each, pool.submit(function, each)))
                if len(waiting) > 2 * count:
                    image, result = waiting.popleft()
                    yield image, result.result()
            for image, result in waiting:
                yield image, result.result()
    finally:
        torch.set_num_threads(cores)  # some of its libraries keep one number for all threads


def _patch_shares(each: WholeImage, level_map: Tensor, patch: int, num_classes: int) -> Tensor:
    """Share of each patch that each class covers, (patches, classes) on the CPU."""
    rows, columns = level_map.shape[1:]
    size = (each.image.shape[1], each.image.shape[2])
    labels = F.interpolate(each.labels[None, None].float(), size, mode="nearest-exact")
    fill = (0, columns * patch - size[1], 0, rows * patch - size[0])
    labels = F.pad(labels[0], fill, value=IGNORE).to(torch.uint8)
    return class_shares(labels, (rows, columns), num_classes)
