"""Training data of the miniature benchmark on disk: videos of worlds, and CamVid's frames."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from midway.data.images import read_image
from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.write import scene_name
from midway.data.video.writer import writing_video
from midway.errors import MidwayError
from midway.paper.miniature.arms import Arm
from midway.paper.miniature.protocol import Dataset, Protocol

CAMVID_FPS = 30.0
"""Frame rate of CamVid's frame numbers; its images are every 30th frame."""

VIDEO = {"crf": "18", "bf": "0"}
"""Options of libx264. With B-frames, it does not encode small videos alike each time."""


def camvid_images(root: Path | None, split: str) -> list[Path]:
    """Return the images of a split of CamVid, ordered by name.

    Raises:
        MidwayError: No folder is given, or it has no such split.

    """
    if root is None:
        raise MidwayError("camvid: no folder is given; add --camvid DIR, or --dataset synthetic")
    found = sorted((root / split).glob("*.png"))
    if not found:
        raise MidwayError(f"{root / split}: no images of CamVid; give its folder to --camvid")
    return found


def reduced(path: Path, protocol: Protocol, *, is_label: bool = False) -> np.ndarray:
    """Read an image of CamVid at the benchmark's size, uint8; labels have no third axis."""
    height, width = protocol.camvid_size
    if is_label:
        label = Image.open(path).resize((width, height), Image.Resampling.NEAREST)
        return np.asarray(label)
    image = Image.fromarray(read_image(str(path)))
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def training_folder(
    protocol: Protocol, dataset: Dataset, arm: Arm, seed: int, *, data: Path, camvid: Path | None
) -> Path:
    """Return the folder of an arm's clips, written if it is missing.

    Args:
        protocol: Worlds and sizes.
        dataset: Dataset of the cell.
        arm: Arm of the cell; with shuffled pairs, frames of different clips form a clip.
        seed: Seed of the cell, which selects the worlds and the shuffling.
        data: Folder of all data that the benchmark writes.
        camvid: Folder of CamVid.

    Raises:
        MidwayError: CamVid is needed, but missing.

    """
    is_shuffled = arm.pairs == "shuffled"
    if dataset == "camvid":
        images = camvid_images(camvid, "train")
        name = f"camvid-shuffled-{seed}" if is_shuffled else "camvid"
        order = np.random.default_rng(seed).permutation(len(images)) if is_shuffled else None
        return _written(data / name, lambda to: _write_frames(to, images, order, protocol))
    name = f"synthetic{'-shuffled' if is_shuffled else ''}-{seed}"
    return _written(data / name, lambda to: _write_videos(to, protocol, seed, is_shuffled))


def clips_config(
    protocol: Protocol, dataset: Dataset, arm: Arm, folder: Path, num_frames: int
) -> ClipsConfig:
    """Return the options of an arm's samples; a batch has the same number of frames in all arms."""
    is_synthetic = dataset == "synthetic"
    gap = protocol.gap_seconds if is_synthetic else (1.0, 1.0)
    return ClipsConfig(
        root=str(folder),
        fps=CAMVID_FPS,
        gap_seconds=(0.0, 0.0) if arm.pairs == "gap-0" else gap,
        starts="random" if is_synthetic else "every_frame",
        draws_per_clip=2 if is_synthetic else 1,
        batch_size=protocol.frames_per_step // num_frames,
        num_workers=0,
    )


def _written(folder: Path, write: Callable[[Path], None]) -> Path:
    """Write a folder unless it exists; an interrupted call leaves no folder of this name."""
    if not folder.exists():
        part = folder.with_name(f"{folder.name}.part")
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        write(part)
        part.rename(folder)
    return folder


def _write_frames(
    folder: Path, images: Sequence[Path], order: np.ndarray | None, protocol: Protocol
) -> None:
    """Write reduced frames; with an order, each name gets the contents of another frame."""
    shown = images if order is None else [images[number] for number in order]
    for name, path in zip(images, shown, strict=True):
        Image.fromarray(reduced(path, protocol)).save(folder / name.name)


def _write_videos(folder: Path, protocol: Protocol, seed: int, is_shuffled: bool) -> None:
    config, count = protocol.world, protocol.num_videos
    seeds = range(seed * count, (seed + 1) * count)
    worlds = [config.build(each) for each in seeds]
    rng = np.random.default_rng(seed)
    # For each time, the world that each video shows: its own, or one of a permutation.
    shown = np.tile(np.arange(count), (config.num_frames, 1))
    if is_shuffled:
        shown = rng.permuted(shown, axis=1)
    for number, world_seed in enumerate(seeds):
        path = folder / f"{scene_name(world_seed)}.mp4"
        with writing_video(
            path, config.fps, options=VIDEO, keyframe_every=round(config.fps)
        ) as write:
            for time in range(config.num_frames):
                write(worlds[shown[time, number]].frame(time / config.fps).image)
