"""Recognition in synthetic worlds: a linear probe and nearest neighbours of frozen patch features.

Both read the same features of the same frames. Their chance levels come from the same readouts
with the classes of the objects redrawn.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from midway.data.synthetic.world import WorldFrame
from midway.evals.metrics.segmentation import SegmentationScore
from midway.evals.probes.knn import Memory
from midway.evals.probes.linear import (
    class_shares,
    linear_segmentation,
    patch_features,
    segmentation_score,
)
from midway.models.encoders.base import Encoder

NEIGHBOURS = 30
TEMPERATURE = 0.02
"""Temperature of the softmax over cosine similarities, as in `KnnConfig`."""


class Scene(Protocol):
    """A synthetic world."""

    def frame(self, seconds: float) -> WorldFrame:
        """Render the image and its masks at any time."""
        ...


class SceneConfig(Protocol):
    """Configuration of a kind of synthetic world."""

    @property
    def num_frames(self) -> int:
        """Frames of a video."""
        ...

    @property
    def fps(self) -> float:
        """Frames per second."""
        ...

    def build(self, seed: int) -> Scene:
        """Return the world of a seed."""
        ...


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledFrames:
    """Frames of synthetic worlds with their masks."""

    images: Tensor
    """uint8, shape (N, H, W, 3)."""
    classes: Tensor
    """Class id of each pixel, int64, shape (N, H, W)."""
    instances: Tensor
    """Object at each pixel, 0 for the background, int64, shape (N, H, W)."""

    @classmethod
    def render(cls, config: SceneConfig, seeds: Iterable[int], frames_per_world: int) -> Self:
        """Render frames evenly spaced over the video of each world."""
        step = config.num_frames / config.fps / frames_per_world
        scenes = (config.build(seed) for seed in seeds)
        frames = [
            scene.frame(number * step) for scene in scenes for number in range(frames_per_world)
        ]
        images, classes, instances = (
            torch.from_numpy(np.stack([getattr(frame, name) for frame in frames]))
            for name in ("image", "classes", "instances")
        )
        return cls(images=images, classes=classes.long(), instances=instances.long())

    def with_random_classes(self, num_classes: int, seed: int) -> Self:
        """Return the frames with a random class for each object, and the background as it is."""
        generator = torch.Generator().manual_seed(seed)
        count = int(self.instances.max()) + 1
        drawn = torch.randint(1, num_classes, (len(self.images), count), generator=generator)
        drawn[:, 0] = 0
        classes = drawn.gather(1, self.instances.flatten(1)).view_as(self.classes)
        return replace(self, classes=classes)


@dataclass(frozen=True, kw_only=True, eq=False)
class RecognitionScore:
    """Scores of both readouts of one encoder."""

    linear: SegmentationScore
    knn: SegmentationScore
    predictions: Tensor
    """Classes predicted by the linear probe, uint8, shape (N, H, W)."""


def recognition(
    encoder: Encoder,
    train: LabelledFrames,
    test: LabelledFrames,
    num_classes: int,
    *,
    levels: tuple[int, ...] = (-1,),
) -> RecognitionScore:
    """Fit both readouts to the training frames, and score them on the test frames."""
    linear, predictions = linear_segmentation(
        encoder,
        (train.images, train.classes),
        (test.images, test.classes),
        num_classes,
        levels=levels,
    )
    return RecognitionScore(
        linear=linear,
        knn=knn_segmentation(encoder, train, test, num_classes, levels=levels),
        predictions=predictions,
    )


def knn_segmentation(
    encoder: Encoder,
    train: LabelledFrames,
    test: LabelledFrames,
    num_classes: int,
    *,
    levels: tuple[int, ...] = (-1,),
) -> SegmentationScore:
    """Score the votes of the nearest training patches, by cosine after removal of the mean."""
    predicted = knn_classes(encoder, train, test, num_classes, levels=levels)
    return segmentation_score(predicted, test.classes, num_classes)


def knn_classes(
    encoder: Encoder,
    train: LabelledFrames,
    test: LabelledFrames,
    num_classes: int,
    *,
    levels: tuple[int, ...] = (-1,),
) -> Tensor:
    """Return the classes (N, H, W) of the test frames by votes of the nearest training patches.

    Classes may have another resolution than the images.
    """
    size = (test.classes.shape[1], test.classes.shape[2])
    stride = min(encoder.strides(levels))
    grid = (test.images.shape[1] // stride, test.images.shape[2] // stride)
    features = patch_features(encoder, train.images, levels).flatten(0, 1)
    mean = features.mean(0)
    memory = Memory(
        mean=mean,
        features=F.normalize(features - mean, dim=1),
        shares=class_shares(train.classes, grid, num_classes),
    )
    queries = patch_features(encoder, test.images, levels)
    votes = memory.vote(
        queries.flatten(0, 1), neighbours=NEIGHBOURS, temperature=TEMPERATURE
    ).unflatten(0, (len(queries), *grid))  # (N, rows, columns, classes)
    return F.interpolate(votes.permute(0, 3, 1, 2), size, mode="bilinear").argmax(1)


def chance(frames: LabelledFrames, num_classes: int) -> float:
    """Return the mIoU in percent of predicting the most frequent class everywhere."""
    counts = torch.bincount(frames.classes.flatten(), minlength=num_classes)
    return 100 * float(counts.max() / counts.sum()) / int(counts.count_nonzero())


def chance_of_objects(frames: LabelledFrames, num_classes: int) -> float:
    """Return the mIoU in percent of exact outlines with a random class for each object."""
    guessed = frames.with_random_classes(num_classes, seed=0).classes
    return segmentation_score(guessed, frames.classes, num_classes).miou
