"""Camera motion read from motion latents of a real video, by a linear probe.

The relative pose of two frames is predicted by ridge regression from the motion latents of the pair
(`midway.evals.probes.pose`), and, for comparison, from

- `untrained_latents`: latents of a network of the same sizes with fresh weights;
- `features`, `untrained_features`: the student's features of both frames at the top level, averaged
  over a grid of 4 x 4 cells;
- `pixels`: differences of the grey frames, shrunk to 16 x 16 pixels;
- `flow`: training-free optical flow of the pixels that the network sees, averaged over the same
  cells. It is built to find motion, so it shows how much these frames reveal.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import torch
import tyro
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.inputs import fit
from midway.config import check_at_least, to_json
from midway.data.labelled_videos.poses import COMPONENTS, PosedVideo, read_posed_video
from midway.errors import MidwayError, counted
from midway.evals.probes.pose import (
    BATCH,
    CELLS,
    VideoPairs,
    cross_predicted,
    error_ratio,
    mean_predicted,
    pair_latents,
    pooled_features,
)
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.flow.pixels import pixel_flow
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import NetworkSource, open_network
from midway.nn.images import denormalise
from midway.progress import progress

VERSION = 1
"""Version of the code; increased if it computes different results from the same options."""
PIXELS = 16
"""Side of shrunk frames."""
NEGLIGIBLE = 1e-6
"""Error of the mean guess, in metres or degrees, below which a component is constant."""
GROUPS = {"translation": slice(0, 3), "rotation": slice(3, 6)}
"""Components that are scored together: metres, and degrees."""


@dataclass(frozen=True, kw_only=True)
class PoseVideo:
    """Video with camera poses, and its pairs."""

    frames: Path
    """Folder of images named by their number, such as 000002.png."""
    poses: Path
    """Poses in KITTI's format: line n, from 0, belongs to image n."""
    gap: int = 1
    """Distance of the frames of a pair, in images of the folder."""
    both_orders: bool = True
    """If True, take each pair in reversed order too: the camera then moves back."""
    tiles: int = 3
    """Number of tiles side by side that a frame is cut into; their latents are concatenated. A
    network with one latent represents one motion at a time, but when the camera moves ahead, left
    and right move differently."""
    num_parts: int = 5
    """Number of contiguous parts; each is tested once, by a probe fitted to the others."""
    block: int = 5
    """Length of the blocks of the bootstrap in frames."""

    def __post_init__(self) -> None:
        check_at_least("poses", self, gap=1, tiles=1, num_parts=3, block=1)


def evaluate(
    *,
    network: Annotated[NetworkSource, tyro.conf.OmitArgPrefixes],
    video: Annotated[PoseVideo, tyro.conf.OmitArgPrefixes],
    folder: Path | None = None,
) -> dict[str, Any]:
    """Predict the relative camera pose of frame pairs; divide the errors by those of the mean.

    Args:
        network: Network with motion latents.
        video: Video with camera poses.
        folder: Folder for results.json; if None, nothing is written.

    Raises:
        MidwayError: The network, the video or its poses cannot be read, the network has no motion
            latents, or the video is too short.

    """
    start = time.monotonic()
    opened = open_network(network)
    fresh = open_network(replace(network, untrained=True)).network
    posed = read_posed_video(video.frames, video.poses)
    pairs = VideoPairs.neighbours(
        len(posed.files), gap=video.gap, num_parts=video.num_parts, reversed_too=video.both_orders
    )
    motion = torch.from_numpy(posed.motion(pairs.first.tolist(), pairs.second.tolist()))
    inputs = pair_inputs(posed, pairs, opened.network, fresh, tiles=video.tiles)
    predicted = {name: cross_predicted(each, motion, pairs) for name, each in inputs.items()}
    settings = to_json(replace(video, frames=Path(video.frames.name), poses=Path("poses")))
    results = complete(
        {
            **to_json(video),
            "network": to_json(network),
            "num_frames": len(posed.files),
            "pairs": int(pairs.is_tested.sum()),
            "mean_guess": {
                name: score["error"]
                for name, score in scores(
                    mean_predicted(motion, pairs), motion, pairs, video
                ).items()
            },
            "arms": {name: scores(each, motion, pairs, video) for name, each in predicted.items()},
        },
        protocol="poses",
        version_hash=protocol_version(VERSION, settings),
        weights=weights_of(opened),
        device=next(opened.network.parameters()).device,
        seconds=time.monotonic() - start,
    )
    if folder:
        write_results(folder, results)
    return results


def scores(
    predicted: Tensor, motion: Tensor, pairs: VideoPairs, video: PoseVideo
) -> dict[str, dict[str, Any]]:
    """Compare predictions with the mean of the training pairs.

    Args:
        predicted: Predicted motion (pairs, 6).
        motion: True motion (pairs, 6).
        pairs: Pairs of the video.
        video: Settings of the bootstrap.

    Returns:
        For translation, rotation and each component: the root mean square `error` in metres or
        degrees, its `ratio` to that of the mean, and the 95 % `interval` of the ratio. A constant
        component has no ratio.

    """
    tested = pairs.is_tested
    squared = (predicted - motion)[tested].square()  # (tested pairs, 6)
    mean = (mean_predicted(motion, pairs) - motion)[tested].square()
    frames = torch.minimum(pairs.first, pairs.second)[tested]
    columns = GROUPS | {name: slice(i, i + 1) for i, name in enumerate(COMPONENTS)}
    found = {}
    for name, column in columns.items():
        error, baseline = squared[:, column].sum(1), mean[:, column].sum(1)
        found[name] = {"error": error.mean().sqrt().item(), "ratio": None, "interval": None}
        if baseline.mean().sqrt() > NEGLIGIBLE:
            ratio, interval = error_ratio(error, baseline, frames, block=video.block)
            found[name] |= {"ratio": ratio, "interval": interval}
    return found


@torch.no_grad()
def pair_inputs(
    posed: PosedVideo,
    pairs: VideoPairs,
    network: MidwayNetwork,
    fresh: MidwayNetwork,
    *,
    tiles: int,
) -> dict[str, Tensor]:
    """Return the inputs of the probes for all pairs, by arm, float64 of shape (pairs, dim).

    Raises:
        MidwayError: The network has no motion latents, or a frame cannot be read.

    """
    if not network.config.dynamics.latent_dynamics:
        raise MidwayError("network: has no motion latents; take one with latent_dynamics")
    size = posed.image(0).shape
    if tiles > size[1]:
        raise MidwayError(f"tiles = {tiles}: the frames have {size[1]} columns; give fewer tiles")
    frames, pixels = [], []
    for number in progress(range(len(posed.files)), "frames", len(posed.files)):
        image = torch.from_numpy(posed.image(number)).permute(2, 0, 1)[None]
        if image.shape[1:] != (3, *size[:2]):
            raise MidwayError(
                f"{posed.files[number]}: has another size than {posed.files[0].name}; give frames "
                "of one size"
            )
        frames.append([fit(tile, network).images for tile in image.tensor_split(tiles, dim=3)])
        grey = image.double().mean(1, keepdim=True)
        pixels.append(F.adaptive_avg_pool2d(grey, PIXELS).flatten())
    # One tensor (frames, 3, height, width) per tile.
    columns = [torch.cat(tile) for tile in zip(*frames, strict=True)]
    first, second, shrunk = pairs.first, pairs.second, torch.stack(pixels)
    found: dict[str, Tensor] = {}
    for prefix, each in (("", network), ("untrained_", fresh)):
        latents = [pair_latents(each, tile, first, second) for tile in columns]
        found[f"{prefix}latents"] = torch.cat(latents, dim=1)
        features = torch.cat([pooled_features(each, tile) for tile in columns], dim=1)
        found[f"{prefix}features"] = torch.cat([features[first], features[second]], dim=1)
    flow = torch.cat([_flow(tile, first, second) for tile in columns], dim=1)
    return {**found, "pixels": shrunk[second] - shrunk[first], "flow": flow}


def _flow(images: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return the flow of pixels averaged over cells, float64 of shape (pairs, 2 * cells)."""
    colours = denormalise(images)
    flow = torch.cat(
        [
            pixel_flow(colours[i], colours[j])
            for i, j in zip(first.split(BATCH), second.split(BATCH), strict=True)
        ]
    )
    return F.adaptive_avg_pool2d(flow, CELLS).flatten(1).double().cpu()


def report(results: Mapping[str, Any]) -> str:
    """Format results as a table of error ratios with their intervals."""
    names = (*GROUPS, *COMPONENTS)
    lines = [
        f"{counted(results['pairs'], 'pair')} of {counted(results['num_frames'], 'frame')}; error "
        "over that of the mean guess (95 % interval)",
        f"  {'':<20}" + "".join(f"{name:>20}" for name in names),
    ]
    for arm, found in results["arms"].items():
        cells = (
            "-"
            if found[name]["ratio"] is None
            else "{:.2f} ({:.2f} to {:.2f})".format(found[name]["ratio"], *found[name]["interval"])
            for name in names
        )
        lines.append(f"  {arm:<20}" + "".join(f"{cell:>20}" for cell in cells))
    cells = (
        f"{results['mean_guess'][name]:.3f} {unit}"
        for name, unit in zip(names, ("m", "deg", "m", "m", "m", "deg", "deg", "deg"), strict=True)
    )
    return "\n".join([*lines, f"  {'mean guess':<20}" + "".join(f"{cell:>20}" for cell in cells)])
