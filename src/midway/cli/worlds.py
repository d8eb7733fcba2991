"""Command ``midway worlds OUT``: videos of moving photographs with exact flow and tracks."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from midway.cli.options import parse, say
from midway.data.labelled_videos.tracks import write_tracks
from midway.data.synthetic.photo_world import PhotoWorldConfig
from midway.data.synthetic.write import write_flow_dataset, write_videos
from midway.errors import MidwayError, counted
from midway.progress import progress

DEFAULT_WORLD = PhotoWorldConfig()


def main(words: Sequence[str]) -> dict[str, Any]:
    """Write worlds of photographs."""
    return parse(worlds, words, prog="midway worlds")


def worlds(
    out: Annotated[Path, tyro.conf.arg(metavar="OUT")],
    /,
    world: Annotated[PhotoWorldConfig, tyro.conf.OmitArgPrefixes] = DEFAULT_WORLD,
    num_worlds: int = 160,
    first_seed: int = 0,
    layout: Literal["videos", "flow", "tracks"] = "videos",
) -> dict[str, Any]:
    """Write worlds in which parts of pictures move over another picture.

    Frames depend only on the options, the seed of the world and the pictures.

    Args:
        out: New or empty folder.
        world: Options of the worlds.
        num_worlds: Number of worlds.
        first_seed: Seed of the first world; the others follow.
        layout: Videos for training, images with exact flow from each to the next and occlusion in
            the layout of MPI-Sintel, or frames with the tracks of 32 points in that of TAP-Vid.

    """
    if num_worlds < 1 or first_seed < 0:
        raise MidwayError(
            f"--num-worlds {num_worlds} --first-seed {first_seed}: give 1 or more worlds, and a "
            "seed of 0 or more"
        )
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise MidwayError(f"{out}: is not empty; give another folder, or remove it")
    write = {"videos": write_videos, "flow": write_flow_dataset, "tracks": write_tracks}[layout]
    for seed in progress(range(first_seed, first_seed + num_worlds), "worlds"):
        write(out, world, seeds=[seed])
    say(f"{out}: {counted(num_worlds, 'world')} of {counted(world.num_frames, 'frame')}")
    return {"out": str(out), "worlds": num_worlds, "layout": layout}
