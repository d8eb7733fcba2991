"""Labelled images: options, reading and validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from midway.config import MAX_BATCH, MAX_WORKERS, require
from midway.data.clip import BadClipError
from midway.data.images import (
    ID_MODES,
    read_colours,
    read_ids,
    read_labelled,
)
from midway.data.segmentation.class_list import ClassList
from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.layouts import DATASETS, FOLDER
from midway.errors import MidwayError, counted

CHECKED_MASKS = 100
"""Maximum masks of a split that are compared with a user's class list before the training."""


@dataclass(frozen=True, kw_only=True)
class SegmentationData:
    """Options of a labelled dataset, its training crops and batches."""

    dataset: str
    """One of bdd100k, cityscapes, ade20k, wt_sem, voc, mapillary, mapillary_v2, camvid, synthetic,
    or folder for own labels."""
    root: str = ""
    """Folder of the dataset as released, or its parent; path or URL."""
    classes: str = ""
    """Class list of dataset folder (docs/OWN_LABELS.md); path or URL."""
    batch_size: int = 16
    """Images per step over all processes."""
    num_workers: int = 4
    """Worker processes per training process."""
    crop: tuple[int, int] = (512, 512)
    """Height and width of training crops in pixels."""
    scale: tuple[int, int] | Literal["native"] = (2048, 1024)
    """Longest and shortest side that training images are resized to fit before the random ratio;
    native keeps their size."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Range of the random resizing ratio."""
    max_class_share: float = 0.75
    """Maximum fraction of one class in a crop; other crops are redrawn, up to ten times."""
    p_flip: float = 0.5
    """Probability of a horizontal flip."""
    distort: bool = True
    """If True, apply photometric distortion to training images."""
    test_scale: tuple[int, int] | Literal["native"] = "native"
    """Longest and shortest side that test images are resized to fit; native keeps their size."""

    def __post_init__(self) -> None:
        names = (*DATASETS, FOLDER)
        if self.dataset not in names:
            raise MidwayError(f"data.dataset: no '{self.dataset}'; there are {', '.join(names)}")
        if self.classes and self.dataset != FOLDER:
            raise MidwayError(
                f"data.classes: {self.dataset} has its own classes; give --data.dataset {FOLDER} "
                "for others, or leave it out"
            )
        if (self.dataset == "wt_sem") != isinstance(self, WalkingToursData):
            raise MidwayError(
                f"data.dataset = {self.dataset}: wt_sem has its own options; choose a protocol of "
                "this dataset"
            )
        scales = [each for each in (self.scale, self.test_scale) if each != "native"]
        low, high = self.ratio
        rules = {
            "batch_size and sides of crop, scale and test_scale: give 1 or more": (
                min(*self.crop, *sum(scales, ()), self.batch_size) >= 1
            ),
            f"num_workers: give 0 to {MAX_WORKERS}": 0 <= self.num_workers <= MAX_WORKERS,
            f"batch_size: give {MAX_BATCH} or less": self.batch_size <= MAX_BATCH,
            "ratio: give two numbers above 0, the first no larger": 0 < low <= high < inf,
            "max_class_share: give a number above 0": self.max_class_share > 0,
            "p_flip: give a probability": 0 <= self.p_flip <= 1,
        }
        require("data", rules)


@dataclass(frozen=True, kw_only=True)
class WalkingToursData(SegmentationData):
    """WT-Sem; its layout is unpublished, so paths and label offset are options."""

    images: str = "images/{split}"
    """Folder of the images below the root, with or without city folders."""
    image_suffix: str = ".jpg"
    labels: str = "labels/{split}"
    label_suffix: str = ".png"
    label_offset: int = 0
    """Label value of the first class, wall: 0 or 1. If 1, label 0 is ignored."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.label_offset not in (0, 1):
            raise MidwayError(f"data.label_offset = {self.label_offset}; give 0 or 1")


@dataclass(frozen=True)
class LabelledImage:
    """Locations of an image and its label file."""

    name: str
    """Path below the folder of its split, without suffix."""
    image: str
    """Path or URL."""
    label: str
    """Path or URL."""


class LabelledImages:
    """Labelled images of a split, sorted by name."""

    def __init__(self, classes: ClassList, items: Sequence[LabelledImage]) -> None:
        self.classes = classes
        self._items = items

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.classes.names

    def __len__(self) -> int:
        return len(self._items)

    def __getitem__(self, index: int) -> LabelledImage:
        return self._items[index]

    def read(self, index: int) -> tuple[Image.Image, NDArray[np.uint8]]:
        """Read an image and its labels.

        Returns:
            RGB image, and class ids or `IGNORE`, uint8 of shape (height, width).

        Raises:
            MidwayError: A file cannot be read, or its labels have a wrong type, value or size.

        """
        item = self._items[index]
        image, classes = read_labelled(item.image), self._read_classes(item.label)
        if image.size != classes.shape[::-1]:
            height, width = classes.shape
            raise MidwayError(
                f"{item.label}: labels of {width}x{height} pixels for an image of "
                f"{image.width}x{image.height}; give labels of the size of {item.image}"
            )
        return image, classes

    def require_labels(self) -> None:
        """Check that a pixel has a class; only images up to the first such pixel are read.

        Up to `CHECKED_MASKS` masks are compared with a user's class list.

        Raises:
            MidwayError: No pixel of any image has a class, a file cannot be read, or a label value
                is not in the class list.

        """
        if self.classes.source:
            step = max(1, len(self) // CHECKED_MASKS)
            for item in self._items[::step][:CHECKED_MASKS]:
                self._read_classes(item.label)
        for index in range(len(self)):
            if (self.read(index)[1] != IGNORE).any():
                return
        first = self[0].label
        others = counted(len(self) - 1, "other label")
        raise MidwayError(
            f"{first}: no pixel of it or of {others} has a class, so there is nothing to "
            "learn or score; check the labels"
        )

    def _read_classes(self, location: str) -> NDArray[np.uint8]:
        classes = self.classes
        if classes.by_colour:
            return classes.classes_of(read_colours(location), location)
        labels = read_ids(location, ID_MODES if classes.palette else ("L",))
        if labels.ndim == 3:  # ids in three equal channels
            if (labels != labels[..., :1]).any():
                own = f"list the colours of the classes in {classes.source}"
                remedy = own if classes.source else "give masks of ids"
                raise BadClipError(location, "is a colour picture", remedy)
            labels = labels[..., 0]
        return classes.classes_of(labels, location)
