"""Probes of the quickstart: recognition, motion and heatmaps, with arms that need no training."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from midway.analysis.perturbation import perturbation_heatmaps
from midway.data.synthetic.shape_world import SHAPE_CLASSES
from midway.evals.probes.baselines import FilterEnergies, PatchFeaturesConfig
from midway.evals.probes.motion import MotionScore, PairSet, motion_probe, synthetic_pairs
from midway.evals.probes.recognition import (
    LabelledFrames,
    RecognitionScore,
    chance,
    recognition,
)
from midway.experiments.base import Experiment
from midway.experiments.motion import THINGS
from midway.experiments.recognition import PROBE_WORLDS, WORLD, midway_tiny
from midway.methods.midway import MidwayConfig
from midway.models.encoders.base import Encoder
from midway.models.midway import MidwayNetwork
from midway.models.weights.load import load
from midway.nn.images import normalise
from midway.progress import progress

CPU = torch.device("cpu")
# Worlds of these seeds appear in no training video.
PROBE_TRAIN, PROBE_TEST = PROBE_WORLDS["report"]
GAP_SECONDS = midway_tiny().data.gap_seconds[1]
"""Time between the frames of a probed pair: the largest gap of training."""
SHOWN = 4
"""Number of examples in each figure."""
FILTERS = "96 random 7x7 filters"
SHIPPED = "synthetic-tiny"
"""Network of the heatmaps, in which motion has emerged."""
HEATMAP_SEEDS = range(2_000_000, 2_000_000 + SHOWN)
"""Seeds of its worlds, which are in no training video."""
HEATMAP_GAP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Heatmaps:
    """Heatmaps of the packaged network on pairs of its own worlds."""

    pairs: PairSet
    points: list[tuple[int, int]]
    """Pixel (x, y) of the perturbed patch of each pair."""
    maps: Tensor
    """Shape (pairs, rows, columns)."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Results of all probes."""

    recognition: dict[str, RecognitionScore]
    """Scores by arm."""
    chance: float
    """mIoU of predicting the most frequent class, in percent."""
    motion: dict[str, MotionScore]
    """Scores by network."""
    test: LabelledFrames
    """Source frames of the test pairs."""
    pairs: PairSet
    """Test pairs."""
    heatmaps: Heatmaps


def method_of(experiment: Experiment) -> MidwayConfig:
    """Return an experiment's Midway configuration."""
    assert isinstance(experiment.method, MidwayConfig)
    return experiment.method


def probe(networks: Mapping[str, MidwayNetwork]) -> Findings:
    """Run the probes on frozen networks, and compute the heatmaps of the packaged one.

    Args:
        networks: By name.

    """
    frames, pairs = [], []
    for seeds, per_world in ((PROBE_TRAIN, 2), (PROBE_TEST, 1)):
        worlds = progress(seeds, "worlds")
        pairs.append(synthetic_pairs(WORLD, worlds, GAP_SECONDS, per_world))
        frames.append(LabelledFrames.render(WORLD, seeds, per_world))
    patch = midway_tiny_patch()
    arms: dict[str, Encoder] = {
        **{name: network.encoder for name, network in networks.items()},
        FILTERS: FilterEnergies(PatchFeaturesConfig(patch_size=patch)),
    }
    classes = len(SHAPE_CLASSES)
    return Findings(
        recognition={
            name: recognition(encoder, frames[0], frames[1], classes)
            for name, encoder in progress(arms.items(), "encoders")
        },
        chance=chance(frames[1], classes),
        motion={name: motion_probe(network, *pairs) for name, network in networks.items()},
        test=frames[1],
        pairs=pairs[1],
        heatmaps=shipped_heatmaps(),
    )


def midway_tiny_patch() -> int:
    """Return the side of a patch of the trained network in pixels."""
    return method_of(midway_tiny()).network.encoder.patch_size


def numbers(findings: Findings) -> dict[str, Any]:
    """Return the scores as JSON values, by arm."""
    found: dict[str, Any] = {"chance": {"miou": findings.chance}}
    for name, score in findings.recognition.items():
        found[name] = {
            "segmentation": {"miou": score.linear.miou, "accuracy": score.linear.accuracy},
            "knn": {"miou": score.knn.miou, "accuracy": score.knn.accuracy},
        }
    for name, score in findings.motion.items():
        found[name] |= {"patch_flow": asdict(score.flow), "camera_motion": asdict(score.camera)}
    return found


def shipped_heatmaps() -> Heatmaps:
    """Compute heatmaps of one patch of each pair with the packaged network."""
    network = load(SHIPPED)
    pairs = synthetic_pairs(THINGS, HEATMAP_SEEDS[:SHOWN], HEATMAP_GAP_SECONDS, 1)
    patch = network.config.encoder.patch_size
    points = _points(HEATMAP_SEEDS[:SHOWN])
    frames = [normalise(each.permute(0, 3, 1, 2) / 255) for each in (pairs.source, pairs.target)]
    maps = [
        perturbation_heatmaps(
            network,
            source[None],
            target[None],
            level=max(network.config.dynamics.levels),
            tokens=[y // patch * (THINGS.width // patch) + x // patch],
        )[0, 0]
        for source, target, (x, y) in zip(*frames, points, strict=True)
    ]
    return Heatmaps(pairs=pairs, points=points, maps=torch.stack(maps))


def _points(seeds: Sequence[int]) -> list[tuple[int, int]]:
    """Return a pixel (x, y) near the centre of the largest object in each first frame."""
    points = []
    for seed in seeds:
        instances = THINGS.build(seed).frame(0.0).instances
        largest = np.bincount(instances[instances > 0]).argmax()
        rows, columns = np.nonzero(instances == largest)
        middle = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
        points.append((int(columns[middle]), int(rows[middle])))
    return points
