"""k-nearest-neighbour segmentation probe: a memory of labelled patches and its predictions."""

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

from midway.config import require
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
"""Query patches per matrix product with the memory, in each thread."""
MAX_THREADS = 16
"""Maximum number of images processed concurrently, which bounds the memory use."""


@dataclass(frozen=True, kw_only=True)
class KnnConfig:
    """Configuration of a nearest-neighbour evaluation: encoder, data, memory and vote."""

    protocol: str
    """Name of the protocol, which sets the dataset and its scales."""
    encoder: Annotated[EncoderSource, tyro.conf.OmitArgPrefixes] = field(
        default_factory=EncoderSource
    )
    data: SegmentationData
    """Training and test images are encoded whole, at the test scale."""
    level: int = -1
    """Encoder level of the features; -1 is the top."""
    neighbours: int = 30
    """k, the number of neighbours that vote."""
    temperature: float = 0.02
    """Temperature of the softmax over cosine similarities that weights the votes."""
    memory_size: int = 65_536
    """Maximum number of patches in the memory, spread evenly over the training images."""
    seed: int = 0
    """Seed of the memory's patches, and of untrained weights."""
    accelerator: Accelerator = "auto"
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    """Precision of the encoder; the neighbour search is in float32."""
    folder: Path | None = None
    """Folder for ``results.json`` and ``confusion.png``; if None, nothing is written."""

    def __post_init__(self) -> None:
        rules = {
            f"neighbours = {self.neighbours}; give 1 or more": self.neighbours >= 1,
            f"memory_size = {self.memory_size}; give 1 or more": self.memory_size >= 1,
            f"temperature = {self.temperature}; give a number above 0": self.temperature > 0,
        }
        require("", rules)


@dataclass(frozen=True, kw_only=True, eq=False)
class Memory:
    """Normalised features of labelled patches, with their class shares."""

    mean: Tensor
    """Mean feature that is subtracted before the comparison, shape (dim,)."""
    features: Tensor
    """Centred features of unit length, shape (patches, dim)."""
    shares: Tensor
    """Share of each patch that each class covers, shape (patches, classes)."""

    def vote(self, features: Tensor, *, neighbours: int, temperature: float) -> Tensor:
        """Return class scores of patches by the weighted vote of their nearest neighbours.

        Args:
            features: Features of query patches, of any norm, shape (N, dim).
            neighbours: Number of neighbours; at most the size of the memory is used.
            temperature: Temperature of the softmax over cosine similarities.

        Returns:
            Shape (N, classes).

        """
        queries = F.normalize(features.float() - self.mean, dim=1)
        return torch.cat(
            [self._vote(part, neighbours, temperature) for part in queries.split(QUERIES_AT_ONCE)]
        )

    def _vote(self, queries: Tensor, neighbours: int, temperature: float) -> Tensor:
        count = min(neighbours, len(self.features))
        # (queries, dim) @ (dim, patches) to (queries, count)
        cosines, indices = (queries @ self.features.T).topk(count, dim=1, sorted=False)
        weights = (cosines / temperature).softmax(1)
        # (queries, count, 1) * (queries, count, classes), summed over the neighbours
        return (weights.unsqueeze(2) * self.shares[indices]).sum(1)


def build_memory(
    encoder: Encoder,
    images: Iterable[WholeImage],
    config: KnnConfig,
    *,
    num_classes: int,
    per_image: int,
) -> Memory:
    """Build a memory of labelled patches, at most `per_image` of each training image.

    If an image has more, patches are sampled with equal probability for each of its classes, so
    that frequent classes such as sky and road do not fill the memory.

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
    """Predict the classes of an image, at the size of its labels.

    Only the shape of the labels is used.

    Args:
        encoder: Frozen encoder.
        memory: Labelled patches.
        each: The image, with its labels.
        config: Level, number of neighbours and temperature.

    """
    image, labels = each.image, each.labels
    level_map = feature_map(encoder, each, config)
    votes = memory.vote(
        level_map.flatten(1).T, neighbours=config.neighbours, temperature=config.temperature
    )
    votes = votes.T.unflatten(1, level_map.shape[1:])
    (patch,), (rows, columns) = encoder.strides((config.level,)), level_map.shape[1:]
    # (classes, rows, columns) to pixels; the padding of the last patches is cropped
    whole = F.interpolate(votes[None], (rows * patch, columns * patch), mode="bilinear")[0]
    inside = whole[:, : image.shape[1], : image.shape[2]]
    return classes_at(inside, (labels.shape[0], labels.shape[1]))


@torch.no_grad()
def feature_map(encoder: Encoder, each: WholeImage, config: KnnConfig) -> Tensor:
    """Return the features of an image padded to whole patches, shape (dim, rows, columns)."""
    device = next(encoder.parameters()).device
    patch, image = encoder.stride, each.image
    padded = F.pad(image.to(device), (0, -image.shape[2] % patch, 0, -image.shape[1] % patch))
    is_mixed = config.precision == "bf16-mixed"
    with torch.autocast(device.type, torch.bfloat16, enabled=is_mixed):
        return encoder.maps(padded[None], (config.level,))[0][0]


def side_by_side(
    function: Callable[[WholeImage], Tensor], images: Iterable[WholeImage], device: torch.device
) -> Iterator[tuple[WholeImage, Tensor]]:
    """Yield each image with the function's result, in order; on a CPU, one image per core.

    Parallelism within operators would synchronise all cores hundreds of times per image, which is
    about three times slower on a machine with other load.
    """
    cores = torch.get_num_threads()
    count = min(cores, MAX_THREADS) if device.type == "cpu" else 1
    waiting: deque[tuple[WholeImage, Future[Tensor]]] = deque()
    try:
        with ThreadPoolExecutor(count, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for each in images:
                waiting.append((each, pool.submit(function, each)))
                # Bounds the number of decoded images in memory.
                if len(waiting) > 2 * count:
                    image, result = waiting.popleft()
                    yield image, result.result()
            for image, result in waiting:
                yield image, result.result()
    finally:
        torch.set_num_threads(cores)  # some backends keep one setting for all threads


def _patch_shares(each: WholeImage, level_map: Tensor, patch: int, num_classes: int) -> Tensor:
    """Return the share of each patch that each class covers, (patches, classes) on the CPU."""
    rows, columns = level_map.shape[1:]
    size = (each.image.shape[1], each.image.shape[2])
    labels = F.interpolate(each.labels[None, None].float(), size, mode="nearest-exact")
    padding = (0, columns * patch - size[1], 0, rows * patch - size[0])
    labels = F.pad(labels[0], padding, value=IGNORE).to(torch.uint8)
    return class_shares(labels, (rows, columns), num_classes)
