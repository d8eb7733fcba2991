"""Writers of synthetic worlds, in the on-disk layouts that the dataloaders read."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from midway.atomic import write_picture
from midway.data.flow.files import write_flo
from midway.data.flow.recorded import write_recorded_flow
from midway.data.signals import SUFFIX
from midway.data.synthetic.photo_world import PhotoWorldConfig
from midway.data.synthetic.shape_world import ShapeWorldConfig
from midway.data.synthetic.world import WorldConfig, WorldFrame
from midway.data.video.writer import writing_video
from midway.errors import MidwayError

AnyWorldConfig = WorldConfig | ShapeWorldConfig | PhotoWorldConfig


def scene_name(seed: int) -> str:
    """Return the name of the world of `seed` on disk."""
    return f"world_{seed:04d}"


def write_videos(
    folder: Path | str,
    config: AnyWorldConfig,
    *,
    seeds: Iterable[int],
    recorded_gap_seconds: float | None = None,
) -> list[Path]:
    """Write `world_SEED.mp4` (H.264, one keyframe a second) for each seed.

    Args:
        folder: Destination, created if needed.
        config: Options of the worlds.
        seeds: Seeds of the worlds.
        recorded_gap_seconds: If given, also write the exact flow across this time as signals,
            `world_SEED.signals.npz`; occluded points have the flow of their surface.

    Returns:
        Paths of the videos, in the order of `seeds`.

    Raises:
        MidwayError: Height or width is odd, which 4:2:0 video does not support.
    """
    if config.height % 2 or config.width % 2:
        raise MidwayError(
            f"odd video size: {config.height} x {config.width} pixels; "
            "make height and width of the world even"
        )
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for seed in seeds:
        paths.append(folder / f"{scene_name(seed)}.mp4")
        with writing_video(
            paths[-1],
            config.fps,
            options={"crf": "18"},
            keyframe_every=max(1, round(config.fps)),
        ) as write:
            for frame in _frames(config, seed):
                write(frame.image)
        if recorded_gap_seconds is not None:
            _record_flow(folder, config, seed, recorded_gap_seconds)
    return paths


def _record_flow(folder: Path, config: AnyWorldConfig, seed: int, gap_seconds: float) -> None:
    world, seconds = config.build(seed), [i / config.fps for i in range(config.num_frames)]
    write_recorded_flow(
        folder / f"{scene_name(seed)}{SUFFIX}",
        seconds,
        (
            (world.flow(t, t + gap_seconds).flow, world.flow(t, t - gap_seconds).flow)
            for t in seconds
        ),
        gap_seconds=gap_seconds,
    )


def write_flow_dataset(folder: Path | str, config: AnyWorldConfig, *, seeds: Iterable[int]) -> None:
    """Write worlds in the layout of MPI-Sintel: `training/{clean,flow,occlusions}/world_SEED`.

    Flow is from each frame to the next, so `config.fps` sets the gap: 2 frames per second make
    0.5 s, and large enough motion to measure.
    """
    for seed in seeds:
        world = config.build(seed)
        clean, flow, occlusions = (
            Path(folder) / "training" / part / scene_name(seed)
            for part in ("clean", "flow", "occlusions")
        )
        for path in (clean, flow, occlusions):
            path.mkdir(parents=True, exist_ok=True)
        for number, frame in enumerate(_frames(config, seed), start=1):
            name = f"frame_{number:04d}"
            write_picture(clean / f"{name}.png", Image.fromarray(frame.image))
            if number < config.num_frames:
                motion = world.flow(frame.seconds, number / config.fps)
                write_flo(flow / f"{name}.flo", motion.flow)
                occluded = motion.occluded.astype(np.uint8) * 255
                write_picture(occlusions / f"{name}.png", Image.fromarray(occluded))


def write_segmentation_dataset(
    folder: Path | str,
    config: AnyWorldConfig,
    *,
    train_seeds: Iterable[int],
    val_seeds: Iterable[int],
) -> None:
    """Write `images/{train,val}/*.png` and, under the same names, `labels/{train,val}/*.png`.

    Labels are 8-bit class ids. All `config.num_frames` frames of a world are written; a low
    `config.fps` makes them more diverse.
    """
    for split, seeds in (("train", train_seeds), ("val", val_seeds)):
        images, labels = (Path(folder) / part / split for part in ("images", "labels"))
        images.mkdir(parents=True, exist_ok=True)
        labels.mkdir(parents=True, exist_ok=True)
        for seed in seeds:
            for number, frame in enumerate(_frames(config, seed), start=1):
                name = f"{scene_name(seed)}_{number:04d}.png"
                write_picture(images / name, Image.fromarray(frame.image))
                write_picture(labels / name, Image.fromarray(frame.classes))


def _frames(config: AnyWorldConfig, seed: int) -> Iterator[WorldFrame]:
    world = config.build(seed)
    return (world.frame(i / config.fps) for i in range(config.num_frames))
