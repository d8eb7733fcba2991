"""Probes, figures and HTML report of the quickstart."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
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
from midway.train.run import RunConfig

CPU = torch.device("cpu")
NUM_VIDEOS = 160
# Worlds of these seeds appear in no training video.
PROBE_TRAIN = range(1_000_000, 1_000_100)
PROBE_TEST = range(2_000_000, 2_000_060)
GAP_SECONDS = midway_tiny().data.gap_seconds[1]
"""Time between the frames of a probed pair: the largest gap of training."""
LEVEL = 3
"""Level of the heatmaps: the highest objective level of the network."""
CROPS_INCHES = 4.0
"""Largest width of the figure of crops, which have few pixels."""
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
    run = experiment.run
    report = Report("Midway quickstart")
    report.paragraph(
        f"A small Midway network was pretrained without labels on {NUM_VIDEOS} synthetic videos: "
        f"{counted(run.steps, 'step')} of {experiment.data.batch_size} pairs of frames "
        f"in {seconds['train'] / 60:.1f} minutes, seed {run.seed}, on this machine's "
        f"CPU. {reason} The network is compared with the untrained one on synthetic worlds that it "
        "was not trained on."
    )
    _report_origin(report, run)
    report.heading("Training")
    lines = (run.folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    report.figure(
        lambda width: pictures.loss_curves(records, width=width),
        "Loss over the steps of the run.",
        _losses_seen(records),
    )
    views = _views(experiment)
    report.figure(
        lambda width: pictures.crops(views, SHOWN, width=min(width, CROPS_INCHES)),
        "Crops of a few training pairs, after augmentation.",
        f"{counted(SHOWN, 'row')} of two crops: a source frame of a textured world, and its "
        "target, in which the shapes have moved; each has other colours.",
    )
    _report_recognition(report, findings, pairs)
    _report_motion(report, findings, pairs)
    _report_next(report, path.parent, run)
    report.write(path)


def _report_origin(report: Report, run: RunConfig) -> None:
    """Add command, commit, versions and date."""
    origin = json.loads((run.folder / "environment.json").read_text())
    report.code(f"midway quickstart --seed {run.seed} --steps {run.steps}")
    commit = f"commit {_short(origin['git_commit'])}, " if origin["git_commit"] else ""
    report.paragraph(
        f"Midway {origin['midway-network']}, {commit}torch {origin['torch']}, "
        f"Python {origin['python']}, {origin['date'][:10]}. The command repeats this run."
    )


def _short(commit: str) -> str:
    """Shorten a commit, and keep the mark of changed files."""
    name, dash, mark = commit.partition("-")
    return f"{name[:12]}{dash}{mark}"


def _report_next(report: Report, folder: Path, run: RunConfig) -> None:
    """Add commands that go on from this run."""
    video = min((folder / "videos").glob("*.mp4"))
    network, here = shlex.quote(str(run.folder)), shlex.quote(str(folder))
    report.heading("What next")
    report.paragraph("Follow a point with this network, watch its training, or use your own video:")
    report.code(
        f"midway track {shlex.quote(str(video))} --point 60,50 --network {network} "
        f"-o {here}/tracks.mp4\n"
        f"tensorboard --logdir {network}\n"
        "midway train camvid.midway_tiny --data.root DIR"
    )
    report.paragraph(
        "DIR is a folder with videos. The documentation explains data, evaluations and analysis: "
        "docs/index.md of the repository."
    )


def _losses_seen(records: Sequence[Mapping[str, Any]]) -> str:
    """Describe the plot of the losses."""
    first, last = records[0], records[-1]
    changes = [
        f"{name} from {first[key]:.2f} to {last[key]:.2f}"
        for name, key in (("total", "loss"), ("dense", "dense_loss"))
        if first[key] is not None and last[key] is not None
    ]
    return f"Two plots of losses from step {first['step']} to {last['step']}: {', '.join(changes)}."


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
    images = pairs.source[:SHOWN].numpy()
    right = [f"{name} {100 * (each == truth).mean():.0f} %" for name, each in predicted.items()]
    report.figure(
        lambda width: pictures.segmentation(images, truth, predicted, CLASS_NAMES, width=width),
        "Test images, ground truth, and predictions of the probes.",
        f"{counted(SHOWN, 'test image')} with textured shapes, their classes as colours, and the "
        f"predicted classes. Pixels that agree with the truth: {', '.join(right)}.",
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
    flows = {"true flow": flow}
    flows |= {name: motion.predicted_flow[:SHOWN].numpy() for name, motion in motions.items()}
    longest = np.hypot(flow[..., 0], flow[..., 1]).max()
    report.figure(
        lambda width: pictures.flow(source, target, flows, width=width),
        "Pairs, ground-truth flow, and flow of patches predicted by the probes.",
        f"{counted(SHOWN, 'pair')} of frames and flow as colours. The true flow has sharp regions, "
        f"one per shape, of up to {longest:.0f} pixels; the predicted flow has blocks of patches.",
    )
    points = np.array(_points())
    moved = points + np.stack([flow[i, y, x] for i, (x, y) in enumerate(points)])
    heatmaps = {f"target, {name}": found.heatmaps.numpy() for name, found in findings.items()}
    report.figure(
        lambda width: pictures.heatmaps(source, target, points, heatmaps, moved, width=width),
        "Forwarded feature perturbation: effect of perturbing the outlined source patch on the "
        "predicted target.",
        _heatmaps_seen(heatmaps, moved),
    )


def _heatmaps_seen(heatmaps: Mapping[str, NDArray[Any]], moved: NDArray[Any]) -> str:
    """Describe the figure of the heatmaps."""
    parts = []
    for name, each in heatmaps.items():
        rows, columns = each.shape[1:]
        row, column = np.unravel_index(each.reshape(len(each), -1).argmax(1), (rows, columns))
        patch = np.array([WORLD.width / columns, WORLD.height / rows])
        hottest = (np.stack([column, row], axis=1) + 0.5) * patch - 0.5
        far = np.hypot(*(hottest - moved).T).mean()
        parts.append(f"in the {name}, it is on average {far:.0f} pixels from the true place")
    return (
        f"{counted(len(moved), 'source frame')} with an outlined patch, and heatmaps over the grey "
        f"targets. The hottest patch has a white cross: {'; '.join(parts)}."
    )


def _motion_row(name: str, motion: MotionScore) -> tuple[str, ...]:
    scores = (motion.flow, motion.camera)
    return (name, *(text for s in scores for text in (f"{s.epe:.2f}", f"{s.explained:z.2f}")))


def _guess_row(motion: MotionScore) -> tuple[str, ...]:
    return ("mean motion", f"{motion.flow.epe_mean:.2f}", "0", f"{motion.camera.epe_mean:.2f}", "0")


def _views(experiment: Experiment) -> dict[str, Tensor]:
    """Return the motion crops of the run's first batch; the run uses no other views."""
    spec = method_of(experiment).views.spec()
    data = replace(experiment.data, num_workers=0)
    batch = next(clip_loader(replace(experiment, data=data), spec).batches(0, 1))
    return {"motion": batch.render(spec).views["motion"]}
