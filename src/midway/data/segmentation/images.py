"""Labelled images: options, search in the layout of the dataset, reading and validation."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from fsspec.core import url_to_fs
from numpy.typing import NDArray
from PIL import Image

from midway.config import MAX_BATCH, MAX_WORKERS, require
from midway.data.files import find_files, is_url
from midway.data.images import (
    open_image,
    read_ids,
    refuse_depth,
    refuse_orientation,
    undamaged,
)
from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.layouts import DATASETS, Dataset, Layout, values_from
from midway.errors import MidwayError, counted

Split = Literal["train", "val"]
NAMED_IN_ERRORS = 3
"""Maximum files or folders named in an error."""


@dataclass(frozen=True, kw_only=True)
class SegmentationData:
    """Options of a labelled dataset, its training crops and batches."""

    dataset: str
    """One of bdd100k, cityscapes, ade20k, wt_sem, camvid, synthetic."""
    root: str = ""
    """Folder of the dataset as released, or its parent; path or URL."""
    batch_size: int = 16
    """Images per step over all processes."""
    num_workers: int = 4
    """Worker processes per training process."""
    crop: tuple[int, int] = (512, 512)
    """Height and width of training crops in pixels."""
    scale: tuple[int, int] = (2048, 1024)
    """Longest and shortest side that training images are resized to fit before the random ratio."""
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
        if self.dataset not in DATASETS:
            raise MidwayError(f"data.dataset: no '{self.dataset}'; there are {', '.join(DATASETS)}")
        if (self.dataset == "wt_sem") != isinstance(self, WalkingToursData):
            raise MidwayError(
                f"data.dataset = {self.dataset}: wt_sem has its own options; choose a protocol of "
                "this dataset"
            )
        test_scale = () if self.test_scale == "native" else self.test_scale
        low, high = self.ratio
        rules = {
            "batch_size and sides of crop, scale and test_scale: give 1 or more": (
                min(*self.crop, *self.scale, *test_scale, self.batch_size) >= 1
            ),
            f"num_workers: give 0 to {MAX_WORKERS}": 0 <= self.num_workers <= MAX_WORKERS,
            f"batch_size: give {MAX_BATCH} or less": self.batch_size <= MAX_BATCH,
            "ratio: give two numbers above 0, the first no larger": 0 < low <= high,
            "max_class_share: give a number above 0": self.max_class_share > 0,
            "p_flip: give a probability": 0 <= self.p_flip <= 1,
        }
        require("data", rules)

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Possible layouts of the dataset below the root."""
        return DATASETS[self.dataset].layouts


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

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """Layout given by the options."""
        num_classes = len(DATASETS[self.dataset].class_names)
        classes = values_from(
            self.label_offset, num_classes, ignored=(*range(self.label_offset), 255)
        )
        return (
            Layout(
                images=self.images,
                image_suffix=self.image_suffix,
                labels=self.labels,
                label_suffix=self.label_suffix,
                classes=classes,
            ),
        )


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

    def __init__(self, dataset: Dataset, layout: Layout, items: Sequence[LabelledImage]) -> None:
        self.class_names = dataset.class_names
        self._lookup = layout.lookup()
        self._allowed = _ranges([*layout.classes])
        self._items = items

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

        Raises:
            MidwayError: No pixel of any image has a class, or a file cannot be read.

        """
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
        values = read_ids(location, ("L",))
        classes = self._lookup[values]
        if classes.min() < 0:
            wrong = int(values[classes < 0][0])
            raise MidwayError(
                f"{location}: label value {wrong} is not in {self._allowed}; check that this "
                "is the right type of label file"
            )
        return classes.astype(np.uint8)


def find_labelled(data: SegmentationData, split: Split) -> LabelledImages:
    """Find all images of a split with their labels.

    Raises:
        MidwayError: Unknown layout, no images, or images and labels that do not match.

    """
    if not data.root:
        raise MidwayError("data.root is not set; give the folder of the dataset by --data.root")
    dataset = DATASETS[data.dataset]
    own_name = dataset.splits[0 if split == "train" else 1]
    places = [
        (layout, tuple(f"{top}{folder}" for folder in layout.folders(own_name)))
        for top in ("", f"{dataset.top_folder}/")
        for layout in data.layouts
    ]
    present = [(layout, both) for layout, both in places if all(_is_folder(data, f) for f in both)]
    if not present:
        expected = " or ".join(layout.describe(own_name) for layout in data.layouts)
        raise MidwayError(
            f"{data.root}: not the layout of {dataset.title}; expected {expected}; "
            f"found {_entries(data.root)}"
        )
    counts = []
    for layout, (image_folder, label_folder) in present:
        images = _listed(f"{data.root}/{image_folder}", layout.image_suffix)
        labels = _listed(f"{data.root}/{label_folder}", layout.label_suffix)
        if images and labels:
            return LabelledImages(dataset, layout, _paired(images, labels, data.root, layout))
        counts.append(
            f"{len(images)} images {image_folder}/**{layout.image_suffix} and {len(labels)} labels "
            f"{label_folder}/**{layout.label_suffix}"
        )
    raise MidwayError(
        f"{data.root}: nothing in split '{own_name}' of {dataset.title}: {'; '.join(counts)}; "
        "is the download complete?"
    )


def read_labelled(location: str) -> Image.Image:
    """Read an 8-bit image as RGB, of the same orientation as its label.

    Raises:
        BadClipError: The file cannot be read, is damaged, has more than 8 bits, or is turned by its
            EXIF.

    """
    with open_image(location) as picture:
        # Before EXIF is read, as this loads a PNG, which then no longer states its depth.
        refuse_depth(picture, location)
        refuse_orientation(picture, location)
        return undamaged(picture, location).convert("RGB")


def _paired(
    images: dict[str, str], labels: dict[str, str], root: str, layout: Layout
) -> list[LabelledImage]:
    for missing, problem, suffix in (
        (images.keys() - labels.keys(), "images have no label", layout.label_suffix),
        (labels.keys() - images.keys(), "labels have no image", layout.image_suffix),
    ):
        if missing:
            names = ", ".join(f"{name}{suffix}" for name in sorted(missing)[:NAMED_IN_ERRORS])
            raise MidwayError(
                f"{root}: {len(missing)} of {max(len(images), len(labels))} {problem}; missing are "
                f"{names}{', ...' if len(missing) > NAMED_IN_ERRORS else ''}; complete the download"
            )
    return [LabelledImage(name, images[name], labels[name]) for name in sorted(images)]


def _listed(folder: str, suffix: str) -> dict[str, str]:
    """Return the locations of the files with a suffix, by name without the suffix."""
    return {
        file.name.removesuffix(suffix): file.location
        for file in find_files(folder)
        if file.name.endswith(suffix)
    }


def _is_folder(data: SegmentationData, folder: str) -> bool:
    location = f"{data.root}/{folder}"
    if not is_url(location):
        return Path(location).is_dir()
    files, path = url_to_fs(location)
    return files.isdir(path)


def _entries(root: str) -> str:
    files, path = url_to_fs(root)
    if not files.isdir(path):
        return "no such folder"
    names = sorted(name.rstrip("/").rpartition("/")[2] for name in files.ls(path, detail=False))
    shown = ", ".join(names[:NAMED_IN_ERRORS]) + (", ..." if len(names) > NAMED_IN_ERRORS else "")
    return shown or "nothing in it"


def _ranges(values: Sequence[int]) -> str:
    """Format numbers as ranges, such as "0 to 18, 255"."""
    runs: list[list[int]] = []
    for value in sorted(values):
        if runs and value == runs[-1][1] + 1:
            runs[-1][1] = value
        else:
            runs.append([value, value])
    return ", ".join(f"{low} to {high}" if low < high else str(low) for low, high in runs)
