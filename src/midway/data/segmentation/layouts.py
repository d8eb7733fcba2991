"""On-disk layouts of labelled datasets: folders, suffixes and label values."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from midway.data.segmentation.classes import CAMVID, DRIVING, IGNORE, SCENE_PARSE
from midway.data.synthetic.world import CLASS_NAMES


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Folders of images and labels below the root; paired files differ in their suffixes only."""

    images: str
    """Folder of the images; ``{split}`` is replaced by the name of the split."""
    image_suffix: str
    labels: str
    """Folder of the labels."""
    label_suffix: str
    classes: Mapping[int, int]
    """Class id, or `IGNORE`, of each valid label value."""

    def folders(self, split: str) -> tuple[str, str]:
        """Return the folders of images and labels of a split, relative to the root."""
        return self.images.format(split=split), self.labels.format(split=split)

    def lookup(self) -> NDArray[np.int16]:
        """Return the class id of each label value, -1 for invalid ones; shape (256,)."""
        table = np.full(256, -1, np.int16)
        table[[*self.classes.keys()]] = [*self.classes.values()]
        return table

    def describe(self, split: str) -> str:
        """Describe the layout of a split, for errors."""
        images, labels = self.folders(split)
        return f"{images}/*{self.image_suffix} with {labels}/*{self.label_suffix}"


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Labelled dataset as released."""

    title: str
    """Name of the dataset in errors."""
    class_names: tuple[str, ...]
    layouts: tuple[Layout, ...]
    """Known layouts; the first that is found is used."""
    top_folder: str
    """Name of the unpacked folder; the root may be this folder or its parent."""
    splits: tuple[str, str] = ("train", "val")
    """Names of the training and the evaluation split in this dataset."""


def values_from(first: int, count: int, *, ignored: Iterable[int] = ()) -> dict[int, int]:
    """Return the classes of `count` consecutive label values from `first`, and of ignored ones."""
    return {first + number: number for number in range(count)} | dict.fromkeys(ignored, IGNORE)


def _cityscapes_ids() -> dict[int, int]:
    """Return the classes of Cityscapes' ``labelIds``; label -1 is stored as 255 in 8 bits."""
    scored = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)
    ids = dict.fromkeys((*range(34), 255), IGNORE)
    return ids | {value: number for number, value in enumerate(scored)}


_TRAIN_IDS = values_from(0, len(DRIVING), ignored=(255,))
_CITYSCAPES_IMAGES = {"images": "leftImg8bit/{split}", "image_suffix": "_leftImg8bit.png"}

DATASETS = {
    "bdd100k": Dataset(
        title="BDD100K sem_seg",
        class_names=DRIVING,
        top_folder="bdd100k",
        layouts=(
            Layout(
                images="images/10k/{split}",
                image_suffix=".jpg",
                labels="labels/sem_seg/masks/{split}",
                label_suffix=".png",
                classes=_TRAIN_IDS,
            ),
            # The release of 2018.
            Layout(
                images="seg/images/{split}",
                image_suffix=".jpg",
                labels="seg/labels/{split}",
                label_suffix="_train_id.png",
                classes=_TRAIN_IDS,
            ),
        ),
    ),
    "cityscapes": Dataset(
        title="Cityscapes",
        class_names=DRIVING,
        top_folder="cityscapes",
        layouts=(
            Layout(
                **_CITYSCAPES_IMAGES,
                labels="gtFine/{split}",
                label_suffix="_gtFine_labelTrainIds.png",
                classes=_TRAIN_IDS,
            ),
            Layout(
                **_CITYSCAPES_IMAGES,
                labels="gtFine/{split}",
                label_suffix="_gtFine_labelIds.png",
                classes=_cityscapes_ids(),
            ),
        ),
    ),
    "ade20k": Dataset(
        title="ADE20K SceneParse150",
        class_names=SCENE_PARSE,
        top_folder="ADEChallengeData2016",
        splits=("training", "validation"),
        layouts=(
            Layout(
                images="images/{split}",
                image_suffix=".jpg",
                labels="annotations/{split}",
                label_suffix=".png",
                classes=values_from(1, len(SCENE_PARSE), ignored=(0,)),
            ),
        ),
    ),
    "wt_sem": Dataset(
        title="Walking Tours Semantic",
        class_names=SCENE_PARSE,
        top_folder="Walking-Tours-Semantic",
        layouts=(),  # unpublished: options of `WalkingToursData`
    ),
    "camvid": Dataset(
        title="CamVid, 11 classes (SegNet's version)",
        class_names=CAMVID,
        top_folder="CamVid",
        splits=("train", "test"),
        layouts=(
            Layout(
                images="{split}",
                image_suffix=".png",
                labels="{split}annot",
                label_suffix=".png",
                classes=values_from(0, len(CAMVID), ignored=(11,)),
            ),
        ),
    ),
    "synthetic": Dataset(
        title="the synthetic world",
        class_names=CLASS_NAMES,
        top_folder="synthetic",
        layouts=(
            Layout(
                images="images/{split}",
                image_suffix=".png",
                labels="labels/{split}",
                label_suffix=".png",
                classes=values_from(0, len(CLASS_NAMES)),
            ),
        ),
    ),
}
