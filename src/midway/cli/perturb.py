"""Command ``midway perturb A B --point X,Y``: heatmaps of forwarded feature perturbation."""

from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from midway.analysis import pictures
from midway.analysis.inputs import Fitted, check_points, fit
from midway.analysis.perturbation import check_level, fast_dtype, output_heatmaps
from midway.atomic import write_picture
from midway.cli.options import check_outputs, parse, parse_points, say
from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.images import read_image
from midway.errors import MidwayError, counted
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.nn.device import pick_device
from midway.nn.eval_mode import evaluating
from midway.progress import progress

SHIPPED = "synthetic-tiny"
"""Default network, which is part of the package."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Draw heatmaps of points."""
    return parse(perturb, words, prog="midway perturb")


def perturb(
    source: Annotated[Path, tyro.conf.arg(metavar="SOURCE")],
    target: Annotated[Path, tyro.conf.arg(metavar="TARGET")],
    /,
    *,
    point: tuple[str, ...],
    network: str = SHIPPED,
    level: tuple[int, ...] = (),
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("perturb.png"),
    short_side: int = 0,
    draws: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Draw heatmaps of forwarded feature perturbation, one row per point and one column per level.

    Args:
        source: Source image.
        target: Target image of the same size.
        point: Points X,Y in pixels of the source; the patch at each point is perturbed.
        network: Midway network: a run folder, a file, a hub id, or a name of midway list networks.
        level: Levels of the forward models; all by default.
        out: Output image.
        short_side: Shorter side of the network's input in pixels; 0 for its training size.
        draws: Number of perturbations to average.
        seed: Seed of the perturbations.
    """
    if out.suffix.lower() not in IMAGE_SUFFIXES:
        raise MidwayError(f"{out}: is not an image format; give a name like perturb.png")
    check_outputs([out], [source, target])
    points = parse_points(point)
    images = _images(source, target)
    check_points(points, images.shape[2:])
    opened = load(network).to(pick_device())
    levels = level or opened.config.dynamics.levels
    for each in levels:
        check_level(opened, each)
    fitted = fit(images, opened, short_side=short_side)
    maps = _heatmaps(opened, fitted, points, levels, draws, seed)
    pixels = images.permute(0, 2, 3, 1).numpy()
    figure = pictures.heatmaps(
        pixels[:1].repeat(len(points), axis=0),
        pixels[1:].repeat(len(points), axis=0),
        points,
        {f"level {each}": heat for each, heat in maps.items()},
    )
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    write_picture(out, Image.open(drawn).convert("RGB"))
    heatmaps = f"heatmaps of {counted(len(points), 'point')}"
    say(f"{out}: {heatmaps} at level {', '.join(map(str, levels))}")
    return {"out": str(out), "levels": {each: _hottest(maps[each], fitted) for each in levels}}


def _images(source: Path, target: Path) -> UInt8[Tensor, "2 3 height width"]:
    for path in (source, target):
        if not path.exists():
            raise MidwayError(f"{path}: no such file; check the path")
    first, second = read_image(str(source)), read_image(str(target))
    if first.shape != second.shape:
        raise MidwayError(
            f"images differ in size: {source} has {first.shape[1]} x {first.shape[0]} pixels, "
            f"{target} {second.shape[1]} x {second.shape[0]}; resize one"
        )
    return torch.from_numpy(np.stack([first, second])).permute(0, 3, 1, 2)


def _heatmaps(
    network: MidwayNetwork,
    fitted: Fitted,
    points: Float[Tensor, "points 2"],
    levels: Sequence[int],
    draws: int,
    seed: int,
) -> dict[int, Float[Tensor, "points rows columns"]]:
    """Return the heatmaps of each level from one pass of the network."""
    with evaluating(network):
        output = network(*fitted.images.split(1))
    columns, rows = fitted.cells(points).unbind(1)
    found = {
        level: output_heatmaps(
            network,
            output.levels[level],
            fitted.grid,
            level=level,
            tokens=(rows * fitted.grid[1] + columns).tolist(),
            num_draws=draws,
            seed=seed,
            dtype=fast_dtype(fitted.images.device),
        )
        for level in progress(levels, "levels")
    }
    return {level: heat[0].float().cpu() for level, heat in found.items()}


def _hottest(heatmaps: Float[Tensor, "points rows columns"], fitted: Fitted) -> list[dict]:
    """Return the centre of each point's hottest patch in pixels, and its cosine."""
    cosines, places = heatmaps.flatten(1).max(1)
    columns, rows = places % fitted.grid[1], places // fitted.grid[1]
    found = (torch.stack([columns, rows], dim=1) + 0.5) * torch.tensor(fitted.patch) - 0.5
    return [
        {"hottest": place, "cosine": cosine}
        for place, cosine in zip(found.tolist(), cosines.tolist(), strict=True)
    ]
