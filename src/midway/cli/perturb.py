"""midway perturb A B --point X,Y: where the dynamics carry a patch of one image in another."""

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
from midway.data.clips.frame_folder import IMAGE_SUFFIXES, read_image
from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.nn.device import pick_device
from midway.nn.eval_mode import evaluating

SHIPPED = "synthetic-tiny"


def main(words: Sequence[str]) -> dict[str, Any]:
    """Draw the heatmaps of points."""
    return parse(perturb, words, prog="midway perturb")


def perturb(
    source: Path,
    target: Path,
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
    """Heatmaps of forwarded feature perturbation: a row of the picture a point, a column a level.

    Args:
        source: Image.
        target: Image of the same size.
        point: X,Y in pixels of the source; its patch is perturbed. Several may be given.
        network: Midway network: a run folder, a file, a hub id, or synthetic-tiny.
        level: Of the forward models; all if none is given.
        out: Picture to write.
        short_side: Pixels of the images' shorter side as the network sees it; 0 for the side that
            it is made for.
        draws: Perturbations that are averaged.
        seed: Of the draws.
    """
    if out.suffix.lower() not in IMAGE_SUFFIXES:
        raise MidwayError(f"{out}: no image format; give a name like perturb.png")
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
    say(f"{out}: heatmaps of {len(points)} points at level {', '.join(map(str, levels))}")
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
    """By level; the network runs once for all of them."""
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
        for level in levels
    }
    return {level: heat[0].float().cpu() for level, heat in found.items()}


def _hottest(heatmaps: Float[Tensor, "points rows columns"], fitted: Fitted) -> list[dict]:
    """Return the middle of each point's hottest patch in pixels, and its cosine."""
    cosines, places = heatmaps.flatten(1).max(1)
    columns, rows = places % fitted.grid[1], places // fitted.grid[1]
    found = (torch.stack([columns, rows], dim=1) + 0.5) * torch.tensor(fitted.patch) - 0.5
    return [
        {"hottest": place, "cosine": cosine}
        for place, cosine in zip(found.tolist(), cosines.tolist(), strict=True)
    ]
