"""Small labelled sample, kept in memory to evaluate the encoder during a run."""

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch.nn import functional as F

from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.find import Split, find_labelled
from midway.data.segmentation.images import LabelledImages, SegmentationData
from midway.data.segmentation.layouts import DATASETS, FOLDER
from midway.data.segmentation.loader import WholeImage, read_whole_image
from midway.errors import MidwayError, counted

NAMES = (*(name for name in DATASETS if name != "wt_sem"), FOLDER)
"""Supported datasets; Walking Tours Semantic needs options that `LabelsConfig` lacks."""


@dataclass(frozen=True, kw_only=True)
class LabelsConfig:
    """Options of the labelled images that evaluate features during a run."""

    dataset: str = ""
    """One of bdd100k, cityscapes, ade20k, voc, mapillary, mapillary_v2, camvid, synthetic, or
    folder for own labels."""
    root: str = ""
    """Folder of the dataset as released, or its parent; path or URL. Empty disables the
    evaluation."""
    classes: str = ""
    """Class list of dataset folder (docs/OWN_LABELS.md); path or URL."""
    images: int = 32
    """Images of each split, evenly spaced by name; the same at every evaluation."""
    memory_size: int = 4096
    """Maximum patches of the training images that the test images are compared with."""
    scale: tuple[int, int] = (512, 256)
    """Longest and shortest side that images are resized to fit, in pixels."""

    def __post_init__(self) -> None:
        if min(self.images, self.memory_size, *self.scale) < 1:
            raise MidwayError(
                "labels: images, memory_size and both sides of scale must be 1 or more; raise "
                "those below 1"
            )
        if self.dataset and not self.root:
            raise MidwayError(f"labels.dataset {self.dataset}: no labels.root; give its folder")
        if self.root and self.dataset not in NAMES:
            problem = f"no '{self.dataset}'" if self.dataset else "not set"
            raise MidwayError(
                f"labels.dataset: {problem}; give the dataset in {self.root}: {', '.join(NAMES)}"
            )

    @property
    def data(self) -> SegmentationData:
        """Options of the dataset, with `scale` as the test scale."""
        return SegmentationData(
            dataset=self.dataset, root=self.root, classes=self.classes, test_scale=self.scale
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class LabelledSample:
    """Images of both splits, with labels at the size of the image."""

    train: list[WholeImage]
    test: list[WholeImage]
    num_classes: int


def read_sample(config: LabelsConfig) -> LabelledSample:
    """Read the images; the choice is deterministic.

    Raises:
        MidwayError: The layout is unknown, a file cannot be read, or the images of a split have no
            labelled pixel.

    """
    found = find_labelled(config.data, "train")
    return LabelledSample(
        train=_read(config, "train", found),
        test=_read(config, "val", find_labelled(config.data, "val")),
        num_classes=len(found.class_names),
    )


def _read(config: LabelsConfig, split: Split, found: LabelledImages) -> list[WholeImage]:
    count = min(config.images, len(found))
    chosen = np.linspace(0, len(found) - 1, count).round().astype(int)
    images = [_shrunk(read_whole_image(found, config.data, int(index))) for index in chosen]
    if all(bool((each.labels == IGNORE).all()) for each in images):
        raise MidwayError(
            f"{config.root}: no pixel of {counted(count, 'image')} chosen from split "
            f"'{split}' has a class; check the labels, or give more --labels.images"
        )
    return images


def _shrunk(each: WholeImage) -> WholeImage:
    """Resize the labels to the image, as full camera resolution would dominate the memory."""
    size = (each.image.shape[1], each.image.shape[2])
    labels = F.interpolate(each.labels[None, None].float(), size, mode="nearest-exact")
    return replace(each, labels=labels[0, 0].to(torch.uint8))
