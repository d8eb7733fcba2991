"""Search for labelled images in the layout of a dataset."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Literal

from fsspec.core import url_to_fs

from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.files import find_files, is_file, is_folder
from midway.data.segmentation.class_files import read_dataset, read_text
from midway.data.segmentation.class_list import NAMED_IN_ERRORS, class_list
from midway.data.segmentation.classes import SCENE_PARSE
from midway.data.segmentation.images import (
    LabelledImage,
    LabelledImages,
    SegmentationData,
    WalkingToursData,
)
from midway.data.segmentation.layouts import DATASETS, FOLDER, Dataset, Layout
from midway.errors import MidwayError

Split = Literal["train", "val"]
OWN_REMEDY = "add them, or name the labelled images of each split in lists (docs/OWN_LABELS.md)"
Files = dict[str, str]
"""Locations of files by the name that image and mask share."""


def described(data: SegmentationData) -> Dataset:
    """Return classes and layouts of a dataset; those of own labels are read from the class list.

    Raises:
        MidwayError: There is no class list, or it cannot be read.

    """
    if data.dataset == FOLDER:
        if not data.classes:
            raise MidwayError(
                "data.classes is not set; give the class list of your labels by --data.classes FILE"
            )
        return read_dataset(data.classes)
    dataset = DATASETS[data.dataset]
    if not isinstance(data, WalkingToursData):
        return dataset
    first = data.label_offset
    return replace(
        dataset,
        classes=class_list(SCENE_PARSE, first, ignored=(*range(first), 255)),
        layouts=(
            Layout(f"{data.images}/*{data.image_suffix}", f"{data.labels}/*{data.label_suffix}"),
        ),
    )


def find_labelled(data: SegmentationData, split: Split) -> LabelledImages:
    """Find all images of a split with their masks.

    Raises:
        MidwayError: Unknown layout, no images, or images and masks that do not match.

    """
    if not data.root:
        raise MidwayError("data.root is not set; give the folder of the dataset by --data.root")
    dataset = described(data)
    own_name = dataset.splits[0 if split == "train" else 1]
    places = [(layout, top) for top in dataset.tops() for layout in dataset.layouts]
    present = [place for place in places if _is_present(data.root, *place, own_name)]
    if not present:
        expected = " or ".join(layout.describe(own_name) for layout in dataset.layouts)
        own = ", or another one in a .toml class list" if data.dataset == FOLDER else ""
        raise MidwayError(
            f"{data.root}: not the layout of {dataset.title}; expected {expected}{own}; "
            f"found {_entries(data.root)}"
        )
    counts = []
    for layout, top in present:
        root = f"{data.root}/{top}"
        images, masks = _files(root, layout, own_name)
        names = _names(root, layout, own_name, split, sorted({*images, *masks}))
        if images and masks and names:
            classes = layout.classes or dataset.classes
            if isinstance(classes, str):
                classes = read_dataset(f"{root}{classes}").classes
            assert classes is not None  # the dataset's, or those of its layouts
            remedy = OWN_REMEDY if data.dataset == FOLDER else "complete the download"
            return LabelledImages(classes, _paired(images, masks, names, data.root, layout, remedy))
        (image_folder, image_suffix), (mask_folder, mask_suffix) = layout.files(own_name)
        counts.append(
            f"{len(images)} images {top}{image_folder}**{image_suffix} and {len(masks)} labels "
            f"{top}{mask_folder}**{mask_suffix}"
        )
    raise MidwayError(
        f"{data.root}: nothing in split '{own_name}' of {dataset.title}: {'; '.join(counts)}; "
        "is the download complete?"
    )


def _is_present(root: str, layout: Layout, top: str, split: str) -> bool:
    (images, _), (masks, _) = layout.files(split)
    folders = [f"{root}/{top}{folder}" for folder in (images, masks)]
    files = [name for name in (layout.lists, layout.classes) if name and isinstance(name, str)]
    locations = [f"{root}/{top}{name}".replace("{split}", split) for name in files]
    return all(map(is_folder, folders)) and all(map(is_file, locations))


def _files(root: str, layout: Layout, split: str) -> tuple[Files, Files]:
    """Return images and masks by the name that they share."""
    (image_folder, image_suffix), (mask_folder, mask_suffix) = layout.files(split)
    masks = _listed(f"{root}{mask_folder}".removesuffix("/"), mask_suffix)
    # Masks may lie beside the images with a longer suffix, such as a.png and a_mask.png.
    taken = {*masks.values()} if image_folder == mask_folder else set()
    return _listed(f"{root}{image_folder}".removesuffix("/"), image_suffix, taken), masks


def _listed(folder: str, suffix: str, taken: Collection[str] = ()) -> Files:
    """Return the locations of the files with a suffix, or of all images, by name without it."""
    found: Files = {}
    for file in find_files(folder):
        ending = suffix or PurePosixPath(file.name).suffix
        if not file.name.endswith(ending) or file.location in taken:
            continue
        if not suffix and ending.lower() not in IMAGE_SUFFIXES:
            continue
        name = file.name[: len(file.name) - len(ending)]
        if name in found:
            raise MidwayError(f"{file.location}: is a second file of {found[name]}; remove one")
        found[name] = file.location
    return found


def _names(
    root: str, layout: Layout, own_name: str, split: Split, found: Sequence[str]
) -> list[str]:
    """Return the names of a split: those found, listed, or left by the held-out share."""
    if layout.lists:
        text = read_text(f"{root}{layout.lists}".replace("{split}", own_name))
        return sorted({line.strip() for line in text.splitlines()} - {""})
    every = layout.hold_out
    if every > len(found) > 0:
        raise MidwayError(
            f"{root}: hold_out = {every} leaves no image for evaluation; give 2 to {len(found)}"
        )
    return [
        name
        for number, name in enumerate(found)
        if not every or (number % every == every - 1) == (split == "val")
    ]


def _paired(
    images: Files, masks: Files, names: Sequence[str], root: str, layout: Layout, remedy: str
) -> list[LabelledImage]:
    (_, image_suffix), (_, mask_suffix) = layout.files("")
    for present, problem, suffix in (
        (masks, "images have no label", mask_suffix),
        (images, "labels have no image", image_suffix),
    ):
        if missing := [name for name in names if name not in present]:
            shown = ", ".join(f"{name}{suffix}" for name in missing[:NAMED_IN_ERRORS])
            more = ", ..." if len(missing) > NAMED_IN_ERRORS else ""
            raise MidwayError(
                f"{root}: {len(missing)} of {len(names)} {problem}; missing are {shown}{more}; "
                f"{remedy}"
            )
    return [LabelledImage(name, images[name], masks[name]) for name in names]


def _entries(root: str) -> str:
    files, path = url_to_fs(root)
    if not files.isdir(path):
        return "no such folder"
    names = sorted(name.rstrip("/").rpartition("/")[2] for name in files.ls(path, detail=False))
    shown = ", ".join(names[:NAMED_IN_ERRORS]) + (", ..." if len(names) > NAMED_IN_ERRORS else "")
    return shown or "nothing in it"
