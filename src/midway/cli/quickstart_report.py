"""Probes, figures and HTML report of the quickstart."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from midway.analysis import pictures
from midway.analysis.perturbation import perturbation_heatmaps
from midway.analysis.report import Report
from midway.data.synthetic.world import CLASS_NAMES, World
from midway.errors import counted
from midway.evals.probes.linear import SegmentationScore, linear_segmentation
from midway.evals.probes.motion import MotionScore, PairSet, motion_probe
from midway.experiments.base import Experiment, clip_loader
from midway.experiments.synthetic import WORLD, midway_tiny
from midway.methods.midway import MidwayConfig
from midway.models.midway import MidwayNetwork
from midway.nn.images import normalise

CPU = torch.device("cpu")
NUM_VIDEOS = 160
# Worlds of these seeds appear in no training video.
PROBE_TRAIN = range(1_000_000, 1_000_100)
PROBE_TEST = range(2_000_000, 2_000_060)
GAP_SECONDS = midway_tiny().data.gap_seconds[1]
"""Time between the frames of a probed pair: the largest gap of training."""
LEVEL = 3
"""Level of the heatmaps: the highest objective level of the network."""
SHOWN = 4
"""Number of examples in each figure."""


@dataclass(frozen=True, kw_only=True)
class Findings:
    """Results of the probes on one network."""

    segmentation: SegmentationScore
    classes: Tensor
    """Predicted classes of the test images, shape (N, H, W)."""
    motion: MotionScore
    heatmaps: Tensor
    """Heatmaps of the shown pairs, shape (SHOWN, rows, columns)."""


def method_of(experiment: Experiment) -> MidwayConfig:
    """Return the configuration of the Midway method of an experiment."""
    assert isinstance(experiment.method, MidwayConfig)
    return experiment.method


def probe(network: MidwayNetwork, train_pairs: PairSet, pairs: PairSet) -> Findings:
    """Run the linear probes and compute the heatmaps of a frozen network.

    Args:
        network: The network.
        train_pairs: Pairs of the worlds `PROBE_TRAIN`, two of each.
        pairs: Pairs of the worlds `PROBE_TEST`, one of each.

    """
    score, classes = linear_segmentation(
        network.encoder,
        (train_pairs.source, _classes(PROBE_TRAIN, 2)),
        (pairs.source, _classes(PROBE_TEST, 1)),
        len(CLASS_NAMES),
    )
    return Findings(
        segmentation=score,
        classes=classes,
        motion=motion_probe(network, train_pairs, pairs),
        heatmaps=_heatmaps(network, pairs),
    )


def numbers(findings: Findings) -> dict[str, Any]:
    """Return the scores as JSON values."""
    return {
        "segmentation": {
            "miou": findings.segmentation.miou,
            "accuracy": findings.segmentation.accuracy,
        },
        "patch_flow": asdict(findings.motion.flow),
        "camera_motion": asdict(findings.motion.camera),
    }


def _classes(seeds: Sequence[int], frames_per_world: int) -> Tensor:
    """Return the class ids of the source frames of `synthetic_pairs`, shape (N, H, W)."""
    step_seconds = WORLD.num_frames / WORLD.fps / frames_per_world
    worlds = (World(WORLD, seed) for seed in seeds)
    return torch.from_numpy(
        np.stack(
            [
                world.frame(number * step_seconds).classes
                for world in worlds
                for number in range(frames_per_world)
            ]
        )
    ).long()


def _heatmaps(network: MidwayNetwork, pairs: PairSet) -> Tensor:
    """Compute the heatmap of one source patch of each shown pair."""
    patch = network.config.encoder.patch_size
    columns = WORLD.width // patch
    frames = [
        normalise(images[:SHOWN].permute(0, 3, 1, 2) / 255)
        for images in (pairs.source, pairs.target)
    ]
    return torch.stack(
        [
            perturbation_heatmaps(
                network,
                source[None],
                target[None],
                level=LEVEL,
                tokens=[y // patch * columns + x // patch],
            )[0, 0]
            for source, target, (x, y) in zip(*frames, _points(), strict=True)
        ]
    )


def _points() -> list[tuple[int, int]]:
    """Return a pixel (x, y) near the centre of the largest object in each shown test image."""
    points = []
    for seed in PROBE_TEST[:SHOWN]:
        instances = World(WORLD, seed).frame(0.0).instances
        largest = np.bincount(instances[instances > 0]).argmax()
        rows, columns = np.nonzero(instances == largest)
        middle = np.argmin(np.hypot(rows - rows.mean(), columns - columns.mean()))
        points.append((int(columns[middle]), int(rows[middle])))
    return points


def write_report(
    path: Path,
    experiment: Experiment,
    findings: dict[str, Findings],
    pairs: PairSet,
    seconds: dict[str, float],
    reason: str,
) -> None:
    """Write the report of a quickstart as one HTML file.

    Args:
        path: The HTML file.
        experiment: The pretraining run.
        findings: Results of the untrained and the trained network, by name.
        pairs: The test pairs.
        seconds: Duration of each stage.
        reason: Reason for fewer steps than in the full run; empty if there are as many.

    """
    lines = (experiment.run.folder / "metrics.jsonl").read_text().splitlines()
    report = Report("Midway quickstart")
    report.paragraph(
        f"A small Midway network was pretrained without labels on {NUM_VIDEOS} synthetic videos: "
        f"{counted(experiment.run.steps, 'step')} of {experiment.data.batch_size} pairs of frames "
        f"in {seconds['train'] / 60:.1f} minutes, seed {experiment.run.seed}, on this machine's "
        f"CPU. {reason} The network is compared with the untrained one on synthetic worlds that it "
        "was not trained on."
    )
    report.heading("Training")
    records = [json.loads(line) for line in lines]
    report.figure(pictures.loss_curves(records), "Loss over the steps of the run.")
    report.figure(_crops(experiment), "Crops of a few training pairs, after augmentation.")
    _report_recognition(report, findings, pairs)
    _report_motion(report, findings, pairs)
    report.write(path)


def _report_recognition(report: Report, findings: dict[str, Findings], pairs: PairSet) -> None:
    report.heading("Recognition")
    report.paragraph(
        "A linear probe classifies the frozen features of each patch into six classes. Classes "
        "differ in texture, never in colour."
    )
    scores = {name: found.segmentation for name, found in findings.items()}
    report.table(
        ("", "mIoU, %", "pixel accuracy, %"),
        [(name, f"{s.miou:.1f}", f"{s.accuracy:.1f}") for name, s in scores.items()],
    )
    predicted = {name: found.classes[:SHOWN].numpy() for name, found in findings.items()}
    truth = _classes(PROBE_TEST[:SHOWN], 1).numpy()
    report.figure(
        pictures.segmentation(pairs.source[:SHOWN].numpy(), truth, predicted, CLASS_NAMES),
        "Test images, ground truth, and predictions of the probes.",
    )


def _report_motion(report: Report, findings: dict[str, Findings], pairs: PairSet) -> None:
    source, target, flow = (x[:SHOWN].numpy() for x in (pairs.source, pairs.target, pairs.flow))
    report.heading("Motion")
    report.paragraph(
        "A ridge regression predicts the motion of each patch from the midway path's tokens, and "
        f"the camera's from the motion latents, over {GAP_SECONDS} s. Motion does not emerge in "
        "this run; docs/MOTION.md has a recipe in which it does. 'Explained' is the explained "
        "variance: 1 is perfect, 0 equals the mean motion, and below 0 is worse."
    )
    motions = {name: found.motion for name, found in findings.items()}
    report.table(
        ("", "patch EPE, px", "explained", "camera EPE, px", "explained"),
        [
            *(_motion_row(name, motion) for name, motion in motions.items()),
            _guess_row(motions["untrained"]),
        ],
    )
    flows = {name: motion.predicted_flow[:SHOWN].numpy() for name, motion in motions.items()}
    report.figure(
        pictures.flow(source, target, flow, flows),
        "Pairs, ground-truth flow, and flow of patches predicted by the probes.",
    )
    points = np.array(_points())
    moved = points + np.stack([flow[i, y, x] for i, (x, y) in enumerate(points)])
    heatmaps = {name: found.heatmaps.numpy() for name, found in findings.items()}
    report.figure(
        pictures.heatmaps(source, target, points, heatmaps, moved),
        "Forwarded feature perturbation: effect of perturbing the outlined source patch on the "
        "predicted target.",
    )


def _motion_row(name: str, motion: MotionScore) -> tuple[str, ...]:
    scores = (motion.flow, motion.camera)
    return (name, *(text for s in scores for text in (f"{s.epe:.2f}", f"{s.explained:z.2f}")))


def _guess_row(motion: MotionScore) -> tuple[str, ...]:
    return ("mean motion", f"{motion.flow.epe_mean:.2f}", "0", f"{motion.camera.epe_mean:.2f}", "0")


def _crops(experiment: Experiment) -> Figure:
    """Draw the motion crops of the run's first batch; the run uses no other views."""
    spec = method_of(experiment).views.spec()
    data = replace(experiment.data, num_workers=0)
    batch = next(clip_loader(replace(experiment, data=data), spec).batches(0, 1))
    views = batch.render(spec).views
    return pictures.crops({"motion": views["motion"]}, SHOWN)
