"""Point tracks against true ones, by TAP-Vid's measures."""

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
from midway.config import to_json
from midway.data.labelled_videos.tracks import TrackedVideo, read_tap_vid, world_video
from midway.data.synthetic.world import WorldConfig
from midway.errors import MidwayError
from midway.evals.metrics.tracking import SIDE, Mode, mean_scores, queries, tap_vid_scores
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import NetworkSource, open_network

VERSION = 1
"""Raised when the code makes something else of the same options."""
VISIBLE = 0.5
"""A point counts as seen if the track's confidence is at least this."""
_COLUMNS = ("average_jaccard", "position_accuracy", "occlusion_accuracy")


@dataclass(frozen=True, kw_only=True)
class WorldVideos:
    """Synthetic worlds with exact tracks."""

    world: WorldConfig = field(
        default_factory=lambda: WorldConfig(
            height=128, width=128, num_frames=24, fps=12, object_speed=30.0, camera_speed=15.0
        )
    )
    first_seed: int = 1_000_000
    """Of the first world; the others follow. Worlds to train on have lower seeds."""
    num_worlds: int = 8
    points_per_world: int = 32

    def __post_init__(self) -> None:
        if min(self.num_worlds, self.points_per_world) < 1 or self.first_seed < 0:
            raise MidwayError(
                "num_worlds and points_per_world must be 1 or more, first_seed 0 or more; change "
                "what is not"
            )


@dataclass(frozen=True, kw_only=True)
class TrackSource:
    """Where videos with true tracks come from."""

    root: Path | None = None
    """Pickle or .npz of TAP-Vid, or a folder of them; synthetic worlds are made if none is named.
    """
    worlds: Annotated[WorldVideos, tyro.conf.OmitArgPrefixes] = field(default_factory=WorldVideos)
    """Which worlds."""

    def videos(self) -> Iterator[TrackedVideo]:
        """Videos one after the other.

        Raises:
            MidwayError: A file cannot be read or has another layout.

        """
        if self.root is not None:
            yield from read_tap_vid(self.root)
            return
        first, count = self.worlds.first_seed, self.worlds.num_worlds
        for seed in range(first, first + count):
            yield world_video(self.worlds.world, seed, self.worlds.points_per_world)


@dataclass(frozen=True, kw_only=True)
class TrackerConfig:
    """How points are followed, and from where."""

    method: Method = "midway"
    """The paper's rule, likeness of features, heatmaps alone, or flow by matching."""
    mode: Mode = "first"
    """Queries: where a point is first seen, followed forward, or every fifth frame, followed both
    ways."""
    level: int = 0
    """Of features and heatmaps; 0 for the highest objective level."""
    num_draws: int = 16
    """K, the perturbations that a heatmap is the mean of."""
    seed: int = 0
    """Of the draws."""
    queries_per_video: int = 0
    """At most so many of each video, evenly chosen; 0 for all."""

    def __post_init__(self) -> None:
        if self.num_draws < 1 or min(self.queries_per_video, self.level) < 0:
            raise MidwayError(
                "num_draws must be 1 or more, queries_per_video and level 0 or more; change what "
                "is not"
            )


DEFAULT_NETWORK, DEFAULT_DATA, DEFAULT_TRACKER = NetworkSource(), TrackSource(), TrackerConfig()


def evaluate(
    *,
    network: Annotated[NetworkSource, tyro.conf.OmitArgPrefixes] = DEFAULT_NETWORK,
    data: TrackSource = DEFAULT_DATA,
    how: Annotated[TrackerConfig, tyro.conf.OmitArgPrefixes] = DEFAULT_TRACKER,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Score tracks of points, beside points that stay where they are.

    Args:
        network: Which follows the points.
        data: Videos with true tracks; frames are resized to 256 x 256 as the protocol wants.
        how: Way of tracking and queries.
        folder: For results.json; nothing is written without.

    Raises:
        MidwayError: The data or the network cannot be read, or no point can be scored.

    """
    start = time.monotonic()
    opened = open_network(network)
    videos = score_videos(opened.network, data.videos(), how)
    # Where the file lies does not decide the numbers.
    source = to_json(data.worlds) if data.root is None else {"file": data.root.name}
    settings = {"data": source, **to_json(how)}
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
    network: MidwayNetwork, videos: Iterable[TrackedVideo], how: TrackerConfig
) -> dict[str, dict[str, Any]]:
    """Number of `queries` of each video and the scores `tracked` and `still`, by name.

    Raises:
        MidwayError: No video, or no point of any is ever seen.

    """
    found: dict[str, dict[str, Any]] = {}
    for video in videos:
        numbers, starts = queries(video.occluded, how.mode)
        if 0 < how.queries_per_video < len(numbers):
            chosen = np.linspace(0, len(numbers) - 1, how.queries_per_video).round().astype(int)
            numbers, starts = numbers[chosen], starts[chosen]
        if not len(numbers):
            continue
        side = np.array([SIDE / video.frames.shape[2], SIDE / video.frames.shape[1]])
        true_points = (video.points[numbers] + 0.5) * side - 0.5
        given = np.clip(true_points[np.arange(len(starts)), starts], 0, SIDE - 1)
        still = np.repeat(given[:, None], len(video.frames), axis=1)
        tracks = _tracked(network, video, given, starts, how)
        guesses = {
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
            for name, (points, occluded) in guesses.items()
        }
        found[video.name] = {"queries": len(numbers), **scores}
    if not found:
        raise MidwayError("no point of any video is ever seen; check the data")
    return found


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
            num_draws=how.num_draws,
            seed=how.seed,
        )
    except MidwayError as error:
        raise MidwayError(f"{video.name}: {error}") from None


def report(results: Mapping[str, Any]) -> str:
    """Results as a short table for people."""
    lines = [
        f"{results['queries']} queries ({results['mode']}) in {results['num_videos']} videos, by "
        f"{results['method']}",
        f"  {'':<10}" + "".join(f"{name:>20}" for name in _COLUMNS),
    ]
    for name in ("tracked", "still"):
        told = (
            "-" if results[name][column] is None else f"{100 * results[name][column]:.1f} %"
            for column in _COLUMNS
        )
        lines.append(f"  {name:<10}" + "".join(f"{each:>20}" for each in told))
    return "\n".join(lines)
