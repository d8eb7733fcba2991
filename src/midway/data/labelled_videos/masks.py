"""Videos with object masks: DAVIS layouts, and folders of frames and masks."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.clips.frame_numbers import natural_key
from midway.data.images import ID_MODES, read_ids, read_image
from midway.errors import MidwayError

LAYOUT = "JPEGImages/480p/NAME, Annotations/480p/NAME and ImageSets, or [NAME/]frames and masks"
MAX_OBJECTS = 64
"""Maximum objects of a mask; more distinct values indicate grey levels instead of ids."""
VOID = 255
"""Value of unlabelled pixels, if there are other objects."""


@dataclass(frozen=True, kw_only=True)
class MaskVideo:
    """Video with object masks of some of its frames, matched by file name."""

    name: str
    frames: tuple[Path, ...]
    """Images of the frames in order."""
    masks: tuple[Path | None, ...]
    """Mask of each frame, or None."""


def find_mask_videos(root: Path, split: str = "") -> list[MaskVideo]:
    """Find videos in the layout of DAVIS, or with folders `frames` and `masks`.

    Args:
        root: Unpacked folder of DAVIS, or a folder with `frames` and `masks`, or its parent.
        split: List of names below `ImageSets`, such as 2017/val; empty for all videos.

    Raises:
        MidwayError: The layout or the split is unknown, or a video has no mask of its first frame.

    """
    if not root.is_dir():
        raise MidwayError(f"{root}: no such folder; check the root of the data")
    images = _resolution(root / "JPEGImages")
    if images is not None:
        names = _split(root, split) if split else sorted(_folders(images), key=natural_key)
        masks = root / "Annotations" / images.name if images.name != "JPEGImages" else None
        videos = [(name, images / name, (masks or root / "Annotations") / name) for name in names]
    else:
        if split:
            raise MidwayError(
                f"{root}: no JPEGImages, so no split '{split}'; leave --data.split out"
            )
        folders = [root, *sorted(root.iterdir())]
        videos = [(f.name, f / "frames", f / "masks") for f in folders if (f / "frames").is_dir()]
    if not videos:
        found = ", ".join(sorted(path.name for path in root.iterdir())[:8]) or "nothing"
        raise MidwayError(f"{root}: no video with masks; expected {LAYOUT}, found {found}")
    return [_video(name, frames, masks) for name, frames, masks in videos]


def read_frame(path: Path, size: Sequence[int] | None) -> UInt8[np.ndarray, "height width 3"]:
    """Read a frame as RGB.

    Args:
        path: Image file.
        size: Required height and width; None accepts any.

    Raises:
        MidwayError: The file is damaged or has another size.

    """
    image = read_image(str(path))
    _check_size(path, image.shape[:2], size)
    return image


def read_mask(path: Path, size: Sequence[int] | None) -> UInt8[np.ndarray, "height width"]:
    """Read the object id of each pixel, the palette index or grey level; 0 is the background.

    Args:
        path: Palette or grey image; RGB is accepted if all pixels are grey.
        size: Required height and width; None accepts any.

    Raises:
        MidwayError: The file is damaged, coloured or has another size.

    """
    values = read_ids(str(path), ID_MODES)
    if values.ndim == 3:
        if (values != values[..., :1]).any():
            raise MidwayError(
                f"{path}: a coloured mask has no object ids; give palette or grey images"
            )
        values = values[..., 0]
    _check_size(path, values.shape, size)
    return values


def objects_of(mask: UInt8[np.ndarray, "height width"], path: Path) -> list[int]:
    """Return the object ids in the first mask of a video.

    Value 255 beside others marks unlabelled pixels, as in DAVIS, so it is no object; as the only
    value it is one.

    Raises:
        MidwayError: The mask has no object, or too many.

    """
    ids = [int(value) for value in np.unique(mask) if value]
    ids = [each for each in ids if each != VOID] or ids
    if not 0 < len(ids) <= MAX_OBJECTS:
        raise MidwayError(
            f"{path}: {len(ids)} objects in the first mask; expected 1 to {MAX_OBJECTS} ids"
        )
    return ids


def _video(name: str, frames: Path, masks: Path) -> MaskVideo:
    for folder in (frames, masks):
        if not folder.is_dir():
            raise MidwayError(f"{name}: no folder {folder}; expected {LAYOUT}")
    images, of_name = _images(frames), {path.stem: path for path in _images(masks)}
    if len(images) < 2:
        raise MidwayError(f"{frames}: has {len(images)} frame; propagation needs two or more")
    if images[0].stem not in of_name:
        raise MidwayError(f"{masks}: no mask {images[0].stem}.png of the first frame; put it there")
    return MaskVideo(
        name=name, frames=tuple(images), masks=tuple(of_name.get(path.stem) for path in images)
    )


def _resolution(images: Path) -> Path | None:
    """Return the folder of videos: 480p, else full resolution, else `images`; None if missing."""
    if not images.is_dir():
        return None
    folders = _folders(images)
    named = [name for name in ("480p", "Full-Resolution") if name in folders]
    return images / named[0] if named else images


def _split(root: Path, split: str) -> list[str]:
    path = root / "ImageSets" / f"{split}.txt"
    try:
        # Lists of DAVIS 2016 contain paths of frames and masks, those of 2017 names of videos.
        lines = [line.split()[0] for line in path.read_text().splitlines() if line.strip()]
    except OSError:
        raise MidwayError(f"{path}: cannot be read; give a list below ImageSets") from None
    return list(dict.fromkeys(line.split("/")[-2] if "/" in line else line for line in lines))


def _folders(root: Path) -> list[str]:
    return [path.name for path in root.iterdir() if path.is_dir()]


def _images(folder: Path) -> list[Path]:
    found = (path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
    return sorted(found, key=lambda path: natural_key(path.name))


def _check_size(path: Path, found: Sequence[int], size: Sequence[int] | None) -> None:
    if size is not None and tuple(found) != tuple(size):
        raise MidwayError(
            f"{path}: {found[1]} x {found[0]} pixels, the video's first frame has {size[1]} x "
            f"{size[0]}; give frames and masks of one size"
        )
