"""Command ``midway perturb A B --point X,Y``: heatmaps of forwarded feature perturbation."""

from collections.abc import Mapping, Sequence
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
from midway.analysis.inputs import Fitted, Square, check_points, fit, squares_around, suited_window
from midway.analysis.perturbation import check_level, fast_dtype, output_heatmaps
from midway.atomic import write_picture
from midway.cli.options import check_outputs, parse, parse_points, say, short_names
from midway.data.clips.frame_folder import IMAGE_SUFFIXES
from midway.data.images import read_image
from midway.errors import MidwayError, counted
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.nn.device import pick_device
from midway.nn.eval_mode import evaluating
from midway.progress import progress

SHIPPED = "midway-tiny"
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
    network: tuple[str, ...] = (SHIPPED,),
    level: tuple[int, ...] = (),
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("perturb.png"),
    short_side: int = 0,
    window: int | None = None,
    draws: int = 16,
    seed: int = 0,
) -> dict[str, Any]:
    """Draw heatmaps of forwarded feature perturbation.

    A row is a point, and a column a level of a network.

    Args:
        source: Source image.
        target: Target image of the same size.
        point: Points X,Y in pixels of the source; the patch at each point is perturbed.
        network: Midway networks, shown side by side: run folders, files, hub ids, or names of
            midway list networks.
        level: Levels of the forward models; all by default.
        out: Output image.
        short_side: Shorter side of the network's input in pixels; 0 for its training size.
        window: Side in pixels of the square around each point that is seen and shown; 0 for images.
            By default twice the first network's training size if that is below 128 and there is no
            --short-side.
        draws: Number of perturbations to average.
        seed: Seed of the perturbations.
    """
    if out.suffix.lower() not in IMAGE_SUFFIXES:
        raise MidwayError(f"{out}: is not an image format; give a name like perturb.png")
    check_outputs([out], [source, target])
    points = parse_points(point)
    images = _images(source, target)
    check_points(points, images.shape[2:])
    if not network:
        raise MidwayError("--network: no network; give one or more")
    networks = {each: load(each).to(pick_device()) for each in dict.fromkeys(network)}
    if window is None:
        window = 0 if short_side else suited_window(networks[network[0]])
    squares = squares_around(images, points, window)
    found = {
        each: _of_network(opened, squares, level, short_side=short_side, draws=draws, seed=seed)
        for each, opened in networks.items()
    }
    _draw(out, squares, _captioned(found))
    names = short_names(found)
    for each, levels in found.items():
        of = f" of {names[each]}" if len(found) > 1 else ""
        shown = ", ".join(map(str, levels))
        say(f"{out}: heatmaps of {counted(len(points), 'point')} at level {shown}{of}")
    hottest = {
        each: {number: places for number, (_, places) in levels.items()}
        for each, levels in found.items()
    }
    return {"out": str(out), "levels": hottest[network[0]], "networks": hottest}


def _captioned(found: Mapping[str, Mapping[int, tuple[Tensor, list[dict]]]]) -> dict[str, Tensor]:
    """Return the heatmaps of all networks and levels by their captions."""
    names = short_names(found)
    return {
        f"target, level {number}" if len(found) == 1 else f"{names[each]}\nlevel {number}": heat
        for each, levels in found.items()
        for number, (heat, _) in levels.items()
    }


def _draw(out: Path, squares: Sequence[Square], maps: Mapping[str, Tensor]) -> None:
    sources, targets = (
        np.concatenate(
            [
                each.images[number].permute(1, 2, 0)[None].repeat(len(each.points), 1, 1, 1).numpy()
                for each in squares
            ]
        )
        for number in (0, 1)
    )
    figure = pictures.heatmaps(sources, targets, torch.cat([each.points for each in squares]), maps)
    drawn = BytesIO()
    figure.savefig(drawn, format="png")
    write_picture(out, Image.open(drawn).convert("RGB"))


def _of_network(
    network: MidwayNetwork,
    squares: Sequence[Square],
    levels: Sequence[int],
    *,
    short_side: int,
    draws: int,
    seed: int,
) -> dict[int, tuple[Float[Tensor, "points rows columns"], list[dict]]]:
    """Return the heatmaps of each level of a network, and the hottest patch of each point."""
    levels = levels or network.config.dynamics.levels
    for each in levels:
        check_level(network, each)
    maps, hottest = {level: [] for level in levels}, {level: [] for level in levels}
    for square in squares:
        fitted = fit(square.images, network, short_side=short_side)
        for level, heat in _heatmaps(network, fitted, square.points, levels, draws, seed).items():
            maps[level].append(heat)
            hottest[level] += _hottest(heat, fitted, square.corner)
    return {level: (torch.cat(maps[level]), hottest[level]) for level in levels}


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


def _hottest(
    heatmaps: Float[Tensor, "points rows columns"], fitted: Fitted, corner: Float[Tensor, "2"]
) -> list[dict]:
    """Return the centre of each point's hottest patch in pixels, and its cosine."""
    cosines, places = heatmaps.flatten(1).max(1)
    columns, rows = places % fitted.grid[1], places // fitted.grid[1]
    found = (torch.stack([columns, rows], dim=1) + 0.5) * torch.tensor(fitted.patch) - 0.5
    found = found + corner
    return [
        {"hottest": place, "cosine": cosine}
        for place, cosine in zip(found.tolist(), cosines.tolist(), strict=True)
    ]
