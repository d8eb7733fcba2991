"""Labelled datasets: classes and paths of images and masks on disk. A new one is an entry here."""

from dataclasses import dataclass

from midway.data.segmentation.class_list import ClassList, class_list
from midway.data.segmentation.classes import CAMVID, DRIVING, PASCAL, SCENE_PARSE
from midway.data.synthetic.world import CLASS_NAMES
from midway.errors import MidwayError

FOLDER = "folder"
"""Dataset of any folders, described by the user's class list."""


@dataclass(frozen=True)
class Layout:
    """Paths of images and masks below the root.

    ``{split}`` is replaced by the name of the split. A path ends in ``*``, the name that
    image and mask share (with subfolders), and a suffix such as ``_train_id.png``; a bare ``*``
    matches any image format.
    """

    images: str
    masks: str
    classes: ClassList | str = ""
    """Classes, or their file below the root; if empty, those of the dataset."""
    lists: str = ""
    """Text file with the names of a split, one a line, if folders do not separate the splits."""
    hold_out: int = 0
    """If n > 0, every n-th image by name is of the evaluation split, the others of training."""

    def __post_init__(self) -> None:
        if self.hold_out < 0 or self.hold_out == 1:
            raise MidwayError(f"hold_out = {self.hold_out}; give 2 or more, or 0 for none")
        for path in (self.images, self.masks):
            folder, star, suffix = path.rpartition("*")
            if not star or "*" in folder or (folder and folder[-1] != "/") or "/" in suffix:
                raise MidwayError(
                    f"path '{path}': must end in * and a suffix; write it like images/*.jpg"
                )

    def files(self, split: str) -> tuple[tuple[str, str], tuple[str, str]]:
        """Return folder (empty or ending in a slash) and suffix of images and of masks."""
        (images, _, image_suffix), (masks, _, mask_suffix) = (
            path.replace("{split}", split).rpartition("*") for path in (self.images, self.masks)
        )
        return (images, image_suffix), (masks, mask_suffix)

    def describe(self, split: str) -> str:
        """Describe the layout of a split, for errors."""
        both = f"{self.images} with {self.masks}" + (f" and {self.lists}" if self.lists else "")
        return both.replace("{split}", split)


@dataclass(frozen=True)
class Dataset:
    """Labelled dataset as released."""

    title: str
    classes: ClassList | None
    """None if each layout has its own."""
    layouts: tuple[Layout, ...]
    """Possible layouts; the first that exists is used."""
    top_folder: str = ""
    """Unpacked folders; the root may be the last of them or above it."""
    splits: tuple[str, str] = ("train", "val")
    """Names of the training and the evaluation split in this dataset."""

    def tops(self) -> list[str]:
        """Return the possible places of the layout below the root, such as ["", "CamVid/"]."""
        parts = self.top_folder.split("/") if self.top_folder else []
        return ["", *("/".join(parts[-count:]) + "/" for count in range(1, len(parts) + 1))]


_TRAIN_IDS = class_list(DRIVING, ignored=(255,))
_CITYSCAPES_SCORED = (7, 8, 11, 12, 13, 17, *range(19, 29), 31, 32, 33)
# Label -1 of Cityscapes is stored as 255 in 8 bits.
_CITYSCAPES_IDS = class_list(
    DRIVING,
    {value: number for number, value in enumerate(_CITYSCAPES_SCORED)},
    ignored=(*range(34), 255),
)
_CITYSCAPES_IMAGES = "leftImg8bit/{split}/*_leftImg8bit.png"
_MAPILLARY_SPLITS = ("training", "validation")

DATASETS = {
    "bdd100k": Dataset(
        "BDD100K sem_seg",
        _TRAIN_IDS,
        (
            Layout("images/10k/{split}/*.jpg", "labels/sem_seg/masks/{split}/*.png"),
            Layout("seg/images/{split}/*.jpg", "seg/labels/{split}/*_train_id.png"),  # of 2018
        ),
        top_folder="bdd100k",
    ),
    "cityscapes": Dataset(
        "Cityscapes",
        _TRAIN_IDS,
        (
            Layout(_CITYSCAPES_IMAGES, "gtFine/{split}/*_gtFine_labelTrainIds.png"),
            Layout(_CITYSCAPES_IMAGES, "gtFine/{split}/*_gtFine_labelIds.png", _CITYSCAPES_IDS),
        ),
        top_folder="cityscapes",
    ),
    "ade20k": Dataset(
        "ADE20K SceneParse150",
        class_list(SCENE_PARSE, 1, ignored=(0,)),
        (Layout("images/{split}/*.jpg", "annotations/{split}/*.png"),),
        top_folder="ADEChallengeData2016",
        splits=("training", "validation"),
    ),
    # Its layout is unpublished: paths and the first id are options of `WalkingToursData`.
    "wt_sem": Dataset(
        "Walking Tours Semantic",
        class_list(SCENE_PARSE, ignored=(255,)),
        (Layout("images/{split}/*.jpg", "labels/{split}/*.png"),),
        top_folder="Walking-Tours-Semantic",
    ),
    "voc": Dataset(
        "PASCAL VOC 2012",
        class_list(PASCAL, ignored=(255,), palette=True),
        (
            Layout(
                "JPEGImages/*.jpg",
                "SegmentationClass/*.png",
                lists="ImageSets/Segmentation/{split}.txt",
            ),
        ),
        top_folder="VOCdevkit/VOC2012",
    ),
    "mapillary": Dataset(
        "Mapillary Vistas 1.2",
        None,
        (
            Layout("{split}/images/*.jpg", "{split}/v1.2/labels/*.png", "config_v1.2.json"),
            Layout("{split}/images/*.jpg", "{split}/labels/*.png", "config.json"),
        ),
        splits=_MAPILLARY_SPLITS,
    ),
    "mapillary_v2": Dataset(
        "Mapillary Vistas 2.0",
        None,
        (Layout("{split}/images/*.jpg", "{split}/v2.0/labels/*.png", "config_v2.0.json"),),
        splits=_MAPILLARY_SPLITS,
    ),
    "camvid": Dataset(
        "CamVid, 11 classes (SegNet's version)",
        class_list(CAMVID, ignored=(11,)),
        (Layout("{split}/*.png", "{split}annot/*.png"),),
        top_folder="CamVid",
        splits=("train", "test"),
    ),
    "synthetic": Dataset(
        "the synthetic world",
        class_list(CLASS_NAMES),
        (Layout("images/{split}/*.png", "labels/{split}/*.png"),),
        top_folder="synthetic",
    ),
}
COMMON_LAYOUTS = (
    *(Layout("images/{split}/*", f"{masks}/{{split}}/*.png") for masks in ("masks", "labels")),
    *(Layout("{split}/images/*", f"{{split}}/{masks}/*.png") for masks in ("masks", "labels")),
    Layout("{split}/*", "{split}annot/*.png"),
    *(layout for layout in DATASETS["voc"].layouts),
)
"""Layouts tried for own labels unless their class list describes one."""
