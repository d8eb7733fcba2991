"""Images with depth: options, search in the layout of NYU Depth v2, and reading."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from midway.config import MAX_BATCH, MAX_WORKERS, require
from midway.data.clip import BadClipError
from midway.data.files import find_files, is_folder
from midway.data.images import open_image, read_labelled, refuse_orientation
from midway.errors import MidwayError

Split = Literal["train", "val"]
FOLDERS = {"train": "sync", "val": "official_splits/test"}
"""Folder of each split, as the prepared NYU Depth v2 of BTS has them."""
TOPS = ("", "nyu_depth_v2/")
IMAGE, DEPTH = "rgb_", "sync_depth_"
"""Beginnings of the names of an image and its depth: rgb_00045.jpg, sync_depth_00045.png."""
UNITS_PER_METRE = 1000
NYU_SIZE = (480, 640)
EIGEN_CROP = (slice(45, 471), slice(41, 601))
"""Rows and columns of an image of `NYU_SIZE` that are scored (Eigen et al., 2014)."""
NEAREST_METRES = 1e-3
"""Smaller depth is unknown."""


@dataclass(frozen=True, kw_only=True)
class DepthData:
    """Options of a depth dataset, its training crops and batches."""

    root: str = ""
    """Folder of NYU Depth v2 with sync and official_splits, or its parent; path or URL."""
    batch_size: int = 16
    """Images per step over all processes."""
    num_workers: int = 4
    """Worker processes per training process."""
    crop: tuple[int, int] = (416, 544)
    """Height and width of training crops in pixels."""
    p_flip: float = 0.5
    """Probability of a horizontal flip."""
    max_metres: float = 10.0
    """Largest depth that is predicted; greater depth is neither trained on nor scored."""
    eigen_crop: bool = True
    """If True, images of 480x640 are scored inside the crop of Eigen et al., others whole."""

    def __post_init__(self) -> None:
        rules = {
            "batch_size and crop: give 1 or more": min(*self.crop, self.batch_size) >= 1,
            f"batch_size: give {MAX_BATCH} or less": self.batch_size <= MAX_BATCH,
            f"num_workers: give 0 to {MAX_WORKERS}": 0 <= self.num_workers <= MAX_WORKERS,
            "p_flip: give a probability": 0 <= self.p_flip <= 1,
            f"max_metres: give more than {NEAREST_METRES}": self.max_metres > NEAREST_METRES,
        }
        require("data", rules)


@dataclass(frozen=True)
class DepthImage:
    """Locations of an image and its depth."""

    name: str
    """Path of the image below the folder of its split, without suffix."""
    image: str
    """Path or URL."""
    depth: str
    """Path or URL of a 16-bit PNG in millimetres."""

    def read(self) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
        """Read the image and its depth.

        Returns:
            RGB (height, width, 3), and depth in metres (height, width), 0 where unknown.

        Raises:
            MidwayError: A file cannot be read, is of the wrong type, or the sizes differ.

        """
        image, depth = np.array(read_labelled(self.image)), read_depth(self.depth)
        if image.shape[:2] != depth.shape:
            raise MidwayError(
                f"{self.depth}: depth of {depth.shape[1]}x{depth.shape[0]} pixels for an image of "
                f"{image.shape[1]}x{image.shape[0]}; give depth of the size of {self.image}"
            )
        return image, depth


def read_depth(location: str) -> NDArray[np.float32]:
    """Read depth in metres from a 16-bit grey PNG in millimetres, shape (height, width).

    Raises:
        BadClipError: The file is no such PNG, or is turned by its EXIF.

    """
    with open_image(location) as picture:
        if picture.format != "PNG" or not picture.mode.startswith("I"):
            raise BadClipError(
                location, f"is {picture.format} of mode {picture.mode}", "give 16-bit grey PNG"
            )
        refuse_orientation(picture, location)
        return (np.array(picture) / UNITS_PER_METRE).astype(np.float32)


def find_depth(data: DepthData, split: Split) -> list[DepthImage]:
    """Find all images of a split with their depth, sorted by name.

    Raises:
        MidwayError: Unknown layout, no images, or an image without depth.

    """
    if not data.root:
        raise MidwayError("data.root is not set; give the folder of NYU Depth v2 by --data.root")
    places = [f"{data.root}/{top}{FOLDERS[split]}" for top in TOPS]
    folder = next(filter(is_folder, places), None)
    if folder is None:
        raise MidwayError(
            f"{data.root}: not the layout of NYU Depth v2; expected {FOLDERS[split]}/SCENE/"
            f"{IMAGE}00000.jpg with {DEPTH}00000.png"
        )
    files = {file.name: file.location for file in find_files(folder)}
    images = [name for name in sorted(files) if name.rpartition("/")[2].startswith(IMAGE)]
    if not images:
        raise MidwayError(f"{folder}: no {IMAGE}*.jpg in it; is the download complete?")
    return [
        DepthImage(name.rpartition(".")[0], files[name], _depth_of(name, files, folder))
        for name in images
    ]


def require_depth(images: Sequence[DepthImage], data: DepthData) -> None:
    """Check that a pixel has a depth in range; only images up to the first such pixel are read.

    Raises:
        MidwayError: No pixel of any image has one, or a file cannot be read.

    """
    if not any(is_known(image.read()[1], data).any() for image in images):
        raise MidwayError(
            f"{images[0].depth}: no pixel of it or of the other {len(images) - 1} has a depth up "
            f"to {data.max_metres:g} m; check the files and --data.max-metres"
        )


def is_known(depth: NDArray[np.float32], data: DepthData) -> NDArray[np.bool_]:
    """Return a mask (height, width) of depth that is trained on."""
    return (depth > NEAREST_METRES) & (depth <= data.max_metres)


def _depth_of(name: str, files: dict[str, str], folder: str) -> str:
    scene, _, image = name.rpartition("/")
    number = image.removeprefix(IMAGE).rpartition(".")[0]
    depth = f"{scene}/{DEPTH}{number}.png".removeprefix("/")
    if depth not in files:
        raise MidwayError(
            f"{folder}/{name}: has no {DEPTH}{number}.png beside it; complete the download or "
            "remove the image"
        )
    return files[depth]
