"""Point tracking on TAP-Vid or synthetic worlds, scored by TAP-Vid's metrics."""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch.nn import functional as F

from midway.analysis.tracking import Method, Tracks, track_points
from midway.config import require, to_json
from midway.data.labelled_videos.tracks import TrackedVideo, read_tap_vid, world_video
from midway.data.synthetic.world import WorldConfig
from midway.errors import MidwayError, counted
from midway.evals.metrics.tracking import SIDE, Mode, mean_scores, queries, tap_vid_scores
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import NetworkSource, open_network
from midway.progress import progress

VERSION = 1
"""Version of the code; increased if it computes different results from the same options."""
VISIBLE = 0.5
"""Smallest confidence of a point that is predicted as visible."""
_COLUMNS = ("average_jaccard", "position_accuracy", "occlusion_accuracy")


@dataclass(frozen=True, kw_only=True)
class WorldVideos:
    """Synthetic worlds with exact ground-truth tracks."""

    world: WorldConfig = field(
        default_factory=lambda: WorldConfig(
            height=128, width=128, num_frames=24, fps=12, object_speed=30.0, camera_speed=15.0
        )
    )
    first_seed: int = 1_000_000
    """Seed of the first world; further worlds have consecutive seeds. Training worlds have lower
    seeds."""
    num_worlds: int = 8
    points_per_world: int = 32

    def __post_init__(self) -> None:
        rules = {
            f"num_worlds = {self.num_worlds}; give 1 or more": self.num_worlds >= 1,
            f"points_per_world = {self.points_per_world}; give 1 or more": (
                self.points_per_world >= 1
            ),
            f"first_seed = {self.first_seed}; give 0 or more": self.first_seed >= 0,
        }
        require("", rules)


@dataclass(frozen=True, kw_only=True)
class TrackSource:
    """Source of videos with ground-truth tracks."""

    root: Path | None = None
    """Pickle or .npz of TAP-Vid, or a folder of them; if None, synthetic worlds are rendered."""
    worlds: Annotated[WorldVideos, tyro.conf.OmitArgPrefixes] = field(default_factory=WorldVideos)
    """Synthetic worlds."""

    def videos(self) -> Iterator[TrackedVideo]:
        """Yield the videos.

        Raises:
            MidwayError: A file cannot be read or has an unknown layout.

        """
        if self.root is not None:
            yield from read_tap_vid(self.root)
            return
        first, count = self.worlds.first_seed, self.worlds.num_worlds
        for seed in range(first, first + count):
            yield world_video(self.worlds.world, seed, self.worlds.points_per_world)


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """Tracking method and queries."""

    method: Method = "midway"
    """The paper's rule by the similarity to the start (midway) or to the current place (plain),
    feature similarity, heatmaps, or flow by feature matching."""
    mode: Mode = "first"
    """Queries: the first visible frame of a point, scored after it, or every fifth frame, scored
    before and after it."""
    level: int = 0
    """Level of features and heatmaps; 0 for the highest objective level."""
    num_draws: int = 16
    """K, the number of perturbations that a heatmap averages."""
    seed: int = 0
    """Seed of the perturbations."""
    window: int = 0
    """Side in pixels of the square around a point, of the 256 of a frame, that the network sees in
    place of the frame; 0 for whole frames."""
    queries_per_video: int = 0
    """Maximum number of queries per video, evenly spaced; 0 for all."""

    def __post_init__(self) -> None:
        rules = {
            f"num_draws = {self.num_draws}; give 1 or more": self.num_draws >= 1,
            f"queries_per_video = {self.queries_per_video}; give 0 or more": (
                self.queries_per_video >= 0
            ),
            f"level = {self.level}; give 0 or more": self.level >= 0,
            f"window = {self.window}; give 0 or more": self.window >= 0,
        }
        require("", rules)


DEFAULT_NETWORK, DEFAULT_DATA, DEFAULT_TRACKER = NetworkSource(), TrackSource(), TrackerConfig()


def evaluate(
    *,
    network: Annotated[NetworkSource, tyro.conf.OmitArgPrefixes] = DEFAULT_NETWORK,
    data: TrackSource = DEFAULT_DATA,
    how: Annotated[TrackerConfig, tyro.conf.OmitArgPrefixes] = DEFAULT_TRACKER,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Score point tracks, with static points as a baseline.

    Args:
        network: Network that tracks the points.
        data: Videos with ground-truth tracks; frames are resized to 256 x 256, as in TAP-Vid.
        how: Tracking method and queries.
        folder: Folder for results.json; if None, nothing is written.

    Raises:
        MidwayError: The data or the network cannot be read, or no point can be scored.

    """
    start = time.monotonic()
    opened = open_network(network)
    count = data.worlds.num_worlds if data.root is None else None
    videos = score_videos(opened.network, data.videos(), how, num_videos=count)
    # The file's folder does not affect the results.
    source = to_json(data.worlds) if data.root is None else {"file": data.root.name}
    settings = {"data": source, **to_json(how)}
    if not how.window:  # results keep the version hash that they had before this option
        del settings["window"]
    results = complete(
        {
            **settings,
            "network": to_json(network),
            "num_videos": len(videos),
            "queries": sum(video["queries"] for video in videos.values()),
            "tracked": mean_scores([video["tracked"] for video in videos.values()]),
            "still": mean_scores([video["still"] for video in videos.values()]),
            "videos": {
                name: {
                    key: mean_scores([each]) if isinstance(each, dict) else each
                    for key, each in video.items()
                }
                for name, video in videos.items()
            },
        },
        protocol=f"tap-vid {how.mode}",
        version_hash=protocol_version(VERSION, settings),
        weights=weights_of(opened),
        device=next(opened.network.parameters()).device,
        seconds=time.monotonic() - start,
    )
    if folder:
        write_results(folder, results)
    return results


def score_videos(
    network: MidwayNetwork,
    videos: Iterable[TrackedVideo],
    how: TrackerConfig,
    *,
    num_videos: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Return the number of `queries` and the scores `tracked` and `still` of each video, by name.

    Args:
        network: Network that tracks the points.
        videos: Videos with ground-truth tracks.
        how: Tracking method and queries.
        num_videos: Number of videos, for the progress bar; None if unknown.

    Raises:
        MidwayError: There are no videos, or no point is ever visible.

    """
    found: dict[str, dict[str, Any]] = {}
    for video in progress(videos, "videos", num_videos):
        numbers, starts = queries(video.occluded, how.mode)
        if 0 < how.queries_per_video < len(numbers):
            chosen = np.linspace(0, len(numbers) - 1, how.queries_per_video).round().astype(int)
            numbers, starts = numbers[chosen], starts[chosen]
        if not len(numbers):
            continue
        # Pixel centres are integers; (x + 0.5) * scale - 0.5 maps them to 256 x 256 frames.
        side = np.array([SIDE / video.frames.shape[2], SIDE / video.frames.shape[1]])
        true_points = (video.points[numbers] + 0.5) * side - 0.5
        given = np.clip(true_points[np.arange(len(starts)), starts], 0, SIDE - 1)
        still = np.repeat(given[:, None], len(video.frames), axis=1)
        tracks = _tracked(network, video, given, starts, how)
        predictions = {
            "tracked": (tracks.points.numpy(), tracks.confidence.numpy() < VISIBLE),
            "still": (still, np.zeros(still.shape[:2], np.bool_)),
        }
        scores = {
            name: tap_vid_scores(
                points=points,
                occluded=occluded,
                true_points=true_points,
                true_occluded=video.occluded[numbers],
                query_frames=starts,
                mode=how.mode,
            )
            for name, (points, occluded) in predictions.items()
        }
        found[_unused(video.name, found)] = {"queries": len(numbers), **scores}
    if not found:
        raise MidwayError("tracks: no point of any video is ever visible; check the data")
    return found


def _unused(name: str, found: Mapping[str, Any]) -> str:
    """Return the name, numbered if another video of the files has it."""
    number, unused = 1, name
    while unused in found:
        number += 1
        unused = f"{name} ({number})"
    return unused


def _tracked(
    network: MidwayNetwork,
    video: TrackedVideo,
    given: np.ndarray,
    starts: np.ndarray,
    how: TrackerConfig,
) -> Tracks:
    frames = torch.from_numpy(video.frames).permute(0, 3, 1, 2)
    if frames.shape[2:] != (SIDE, SIDE):
        resized = [
            F.interpolate(each[None].float(), (SIDE, SIDE), mode="bilinear", antialias=True)[0]
            for each in frames
        ]
        frames = torch.stack([each.round().clamp(0, 255).to(torch.uint8) for each in resized])
    try:
        return track_points(
            network,
            frames,
            torch.from_numpy(given),
            torch.from_numpy(starts),
            method=how.method,
            level=how.level or None,
            window=how.window,
            num_draws=how.num_draws,
            seed=how.seed,
        )
    except MidwayError as error:
        raise MidwayError(f"{video.name}: {error}") from None


def report(results: Mapping[str, Any]) -> str:
    """Format results as a short table."""
    lines = [
        f"{counted(results['queries'], 'query', 'queries')} ({results['mode']}) in "
        f"{counted(results['num_videos'], 'video')}, by {results['method']}",
        f"  {'':<10}" + "".join(f"{name:>20}" for name in _COLUMNS),
    ]
    for name in ("tracked", "still"):
        cells = (
            "-" if results[name][column] is None else f"{100 * results[name][column]:.1f} %"
            for column in _COLUMNS
        )
        lines.append(f"  {name:<10}" + "".join(f"{cell:>20}" for cell in cells))
    return "\n".join(lines)
