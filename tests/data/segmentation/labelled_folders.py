"""Dummies of the labelled datasets in the layout that each really has."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

NUM_CLASSES = {
    "bdd100k": 19,
    "bdd100k_2018": 19,
    "cityscapes": 19,
    "cityscapes_train_ids": 19,
    "ade20k": 150,
    "wt_sem": 150,
    "voc": 21,
    "mapillary": 4,
    "mapillary_1_2": 4,
    "mapillary_v2": 4,
    "camvid": 11,
    "synthetic": 6,
}
"""Kinds of dummies; some are other packings of one dataset."""
DATASET = {
    "bdd100k_2018": "bdd100k",
    "cityscapes_train_ids": "cityscapes",
    "mapillary_1_2": "mapillary",
}
"""Dataset of a kind that is not named like it."""

CITYSCAPES_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)


def stored(kind: str, classes: np.ndarray) -> np.ndarray:
    """Label values as the dataset stores classes, 255 being none."""
    none = classes == 255
    if kind in ("bdd100k", "bdd100k_2018", "cityscapes_train_ids", "synthetic", "voc"):
        return classes
    if kind.startswith("mapillary"):  # "Unlabeled" is the last label
        return np.where(none, 4, classes)
    if kind == "cityscapes":
        return np.where(none, 0, np.array(CITYSCAPES_IDS)[np.where(none, 0, classes)])
    if kind == "camvid":
        return np.where(none, 11, classes)
    return np.where(none, 0, classes + 1)  # ADE20K, and WT-Sem with label_offset 1


def paths(kind: str, root: Path, split: str, number: int) -> tuple[Path, Path]:
    """Where image and label `number` of split "train" or "val" lie."""
    name = f"{'abcdef'[number % 6]}{number:04d}"
    if kind == "voc":  # both splits lie in one folder
        name = f"2007_{split}_{number:06d}"
    if kind == "bdd100k":
        image = root / f"images/10k/{split}/{name}.jpg"
        return image, root / f"labels/sem_seg/masks/{split}/{name}.png"
    if kind == "bdd100k_2018":
        image = root / f"seg/images/{split}/{name}.jpg"
        return image, root / f"seg/labels/{split}/{name}_train_id.png"
    if kind.startswith("cityscapes"):
        city = ("aachen", "zurich")[number % 2]
        name = f"{city}_{number:06d}_000019"
        ids = "labelTrainIds" if kind == "cityscapes_train_ids" else "labelIds"
        image = root / f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png"
        return image, root / f"gtFine/{split}/{city}/{name}_gtFine_{ids}.png"
    if kind == "ade20k":
        folder = {"train": "training", "val": "validation"}[split]
        name = f"ADE_{split}_{number:08d}"
        return root / f"images/{folder}/{name}.jpg", root / f"annotations/{folder}/{name}.png"
    if kind == "camvid":
        folder = {"train": "train", "val": "test"}[split]
        return root / f"{folder}/{name}.png", root / f"{folder}annot/{name}.png"
    if kind == "voc":
        return root / f"JPEGImages/{name}.jpg", root / f"SegmentationClass/{name}.png"
    if kind.startswith("mapillary"):
        folder = {"train": "training", "val": "validation"}[split]
        version = {"mapillary": "", "mapillary_1_2": "v1.2/", "mapillary_v2": "v2.0/"}[kind]
        image = root / f"{folder}/images/{name}.jpg"
        return image, root / f"{folder}/{version}labels/{name}.png"
    city = "Amsterdam/" if kind == "wt_sem" else ""
    suffix = "jpg" if kind == "wt_sem" else "png"
    return root / f"images/{split}/{city}{name}.{suffix}", root / f"labels/{split}/{city}{name}.png"


def write_dummy(
    kind: str,
    root: Path,
    *,
    size: tuple[int, int] = (48, 80),
    train: int = 6,
    val: int = 3,
    seed: int = 0,
) -> None:
    """A dataset of images whose blocks of 16 pixels have the brightness of their class.

    Args:
        kind: One of `NUM_CLASSES`.
        root: Where the dataset is unpacked.
        size: Height and width of the images.
        train: Images in the training split.
        val: Images in the other.
        seed: Of the classes.

    """
    rng = np.random.default_rng(seed)
    count = NUM_CLASSES[kind]
    for split, number in _numbers(train, val):
        rows, columns = (-(-side // 16) for side in size)
        blocks = rng.integers(0, count, (rows, columns))
        blocks[rng.random(blocks.shape) < 0.1] = 255 if kind != "synthetic" else 0
        classes = blocks.repeat(16, 0).repeat(16, 1)[: size[0], : size[1]]
        grey = np.where(classes == 255, 0, 255 * (classes + 1) // (count + 1))
        image, label = paths(kind, root, split, number)
        for path in (image, label):
            path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(grey.astype(np.uint8)).convert("RGB").save(image)
        mask = Image.fromarray(stored(kind, classes).astype(np.uint8))
        if kind == "voc" or kind.startswith("mapillary"):
            mask.putpalette(rng.integers(0, 256, 768).astype(np.uint8).tobytes())
        mask.save(label)
        if kind == "cityscapes":  # what the download has besides
            Image.fromarray(classes.astype(np.uint8)).save(
                str(label).replace("labelIds", "instanceIds")
            )

    if kind == "voc":
        for split in ("train", "val"):
            write_list(root / f"ImageSets/Segmentation/{split}.txt", kind, split, train, val)
    if kind.startswith("mapillary"):
        name = {"mapillary": "", "mapillary_1_2": "_v1.2", "mapillary_v2": "_v2.0"}[kind]
        (root / f"config{name}.json").write_text(json.dumps({"labels": MAPILLARY}))


MAPILLARY = [
    {"name": f"object--{name}", "readable": name, "evaluate": name != "Unlabeled", "color": colour}
    for name, colour in (
        *(("Bird", [165, 42, 42]), ("Curb", [196, 196, 196]), ("Road", [128, 64, 128])),
        *(("Car", [0, 0, 142]), ("Unlabeled", [0, 0, 0])),
    )
]
"""Labels in the configuration of a small Mapillary Vistas."""


def write_list(path: Path, kind: str, split: str, train: int, val: int) -> None:
    """The names of a split, one a line, as VOC has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    names = [paths(kind, path, own, number)[1].stem for own, number in _numbers(train, val)]
    wanted = names[:train] if split == "train" else names[train:]
    path.write_text("\n".join(wanted) + "\n")


def _numbers(train: int, val: int) -> Iterator[tuple[str, int]]:
    yield from (("train", number) for number in range(train))
    yield from (("val", number) for number in range(val))
