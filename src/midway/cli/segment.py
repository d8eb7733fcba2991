"""Command ``midway segment IMAGES --network READOUT -o DIR``: masks and overlays."""

from collections.abc import Iterator, Sequence
from math import inf
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from numpy.typing import NDArray
from PIL import Image

from midway.atomic import write_picture
from midway.cli.options import parse, say
from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.images import read_image
from midway.data.video.file import VideoFile
from midway.data.video.frames import VideoFrames
from midway.data.video.header import VIDEO_SUFFIXES
from midway.data.video.writer import writing_video
from midway.errors import MidwayError, counted
from midway.evals.readouts.segmentation_masks import (
    MAX_NAMED,
    overlay,
    with_legend,
    write_classes,
    write_mask,
)
from midway.evals.readouts.segmentation_run import TrainedReadout, load_readout
from midway.nn.device import pick_device
from midway.progress import progress

MASKS, OVERLAYS, CLASSES = "masks", "overlays", "classes.toml"
"""Folders and file below the output folder."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Segment images or videos."""
    return parse(segment, words, prog="midway segment")


def segment(
    images: Annotated[tuple[Path, ...], tyro.conf.arg(metavar="IMAGE|FOLDER|VIDEO ...")],
    /,
    *,
    network: Path,
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])],
    opacity: float = 0.5,
    fps: float = 0.0,
) -> dict[str, Any]:
    """Segment images or videos with a trained readout.

    DIR/masks has a palette PNG of ids for each image or frame, DIR/overlays the image blended with
    the colours of its classes, and DIR/classes.toml their class list.

    Args:
        images: Images, folders of images, or videos.
        network: Run folder of midway eval segmentation.
        out: Folder for masks, overlays and classes.
        opacity: Weight of the colours in overlays, from 0 to 1.
        fps: Frames per second of a video to process; 0 for all frames.
    """
    if not 0 <= opacity <= 1:
        raise MidwayError(f"--opacity {opacity:g}: give a number from 0 to 1")
    if not 0 <= fps < inf:
        raise MidwayError(f"--fps {fps:g}: give a rate, or 0 for all frames")
    named = dict(_named(images, out))
    trained = load_readout(network, pick_device())
    counts = np.zeros(len(trained.classes.names), np.int64)
    (out / MASKS).mkdir(parents=True, exist_ok=True)
    write_classes(out / CLASSES, trained.classes)
    pictures = {name: path for name, path in named.items() if not _is_video(path)}
    for name, path in progress(pictures.items(), "images", len(pictures)):
        image = read_image(str(path))
        predicted = trained.predict(image)
        write_mask(_place(out, MASKS, name, ".png"), predicted, trained.classes)
        present = [int(c) for c in np.unique(predicted)]
        drawn = with_legend(
            overlay(image, predicted, trained.classes, opacity), trained.classes, present
        )
        write_picture(_place(out, OVERLAYS, name, ".png"), Image.fromarray(drawn))
        counts += np.bincount(predicted.ravel(), minlength=len(counts))
    frames = 0
    for name, path in named.items():
        if _is_video(path):
            found = _video(path, name, trained, out, opacity, fps)
            counts, frames = counts + found[0], frames + found[1]
    shares = dict(zip(trained.classes.names, (100 * counts / counts.sum()).tolist(), strict=True))
    largest = sorted(shares.items(), key=lambda item: -item[1])[:3]
    what = [counted(len(pictures), "image")] * bool(pictures) + [counted(frames, "frame")] * bool(
        frames
    )
    say(
        f"{out}: {' and '.join(what)}; mostly "
        + ", ".join(f"{name} {share:.0f} %" for name, share in largest)
    )
    return {"out": str(out), "images": len(pictures), "frames": frames, "percent": shares}


def _named(images: Sequence[Path], out: Path) -> Iterator[tuple[str, Path]]:
    """Yield the name in the output and the path of each image or video.

    Raises:
        MidwayError: There is no such file, it is of another kind, or two have the same name.

    """
    used: dict[str, Path] = {}
    for given in images:
        paths = sorted(_below(given)) if given.is_dir() else [given]
        if given.is_dir() and not paths:
            raise MidwayError(f"{given}: no image in it; give images, folders of images or videos")
        for path in paths:
            if not path.is_file():
                raise MidwayError(f"{path}: no such file; check the path")
            if path.suffix.lower() not in IMAGE_SUFFIXES and not _is_video(path):
                raise MidwayError(f"{path}: is neither image nor video; leave it out")
            name = str(path.relative_to(given).with_suffix("")) if given.is_dir() else path.stem
            if name in used:
                raise MidwayError(
                    f"{path}: would have the same mask as {used[name]}; segment them into two "
                    "folders"
                )
            if (out / OVERLAYS).resolve() in path.resolve().parents:
                raise MidwayError(f"{path}: is among the overlays of -o; give another -o")
            used[name] = path
            yield name, path


def _below(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


def _place(out: Path, part: str, name: str, suffix: str) -> Path:
    path = out / part / f"{name}{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _video(
    path: Path, name: str, trained: TrainedReadout, out: Path, opacity: float, fps: float
) -> tuple[NDArray[np.int64], int]:
    """Segment a video; return the pixels of each class, and the number of frames."""
    classes = trained.classes
    shown = [*range(len(classes.names))] if len(classes.names) <= MAX_NAMED else []
    counts = np.zeros(len(classes.names), np.int64)
    with VideoFile(str(path)) as opened:
        opened.warn()
        frames = VideoFrames(opened, fps=fps)
        with writing_video(_place(out, OVERLAYS, name, ".mp4"), frames.fps) as write:
            for number in progress(range(len(frames)), "frames"):
                image = frames[number].permute(1, 2, 0).numpy()
                predicted = trained.predict(image)
                write_mask(_place(out, MASKS, f"{name}/{number:06d}", ".png"), predicted, classes)
                drawn = overlay(image, predicted, classes, opacity)
                write(with_legend(drawn, classes, shown), frames.seconds[number])
                counts += np.bincount(predicted.ravel(), minlength=len(counts))
    return counts, len(frames)
