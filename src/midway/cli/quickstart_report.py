"""Figures and HTML report of the quickstart."""

import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from midway.analysis import pictures
from midway.analysis.report import Report
from midway.cli.quickstart_probes import (
    GAP_SECONDS,
    HEATMAP_GAP_SECONDS,
    SHIPPED,
    SHOWN,
    Findings,
    Heatmaps,
    method_of,
)
from midway.cli.quickstart_reference import COMMAND, MEASURED, REFERENCE
from midway.data.synthetic.shape_world import SHAPE_CLASSES
from midway.errors import counted
from midway.evals.probes.motion import MotionScore
from midway.experiments.base import Experiment, clip_loader
from midway.experiments.recognition import NUM_VIDEOS
from midway.train.run import RunConfig

CROPS_INCHES, HEATMAP_INCHES = 4.0, 5.0
"""Largest widths of the figures of crops and heatmaps, whose images have few pixels."""


def write_report(
    path: Path,
    experiment: Experiment,
    findings: Findings,
    seconds: dict[str, float],
    reason: str,
) -> None:
    """Write the report of a quickstart as one HTML file.

    Args:
        path: The HTML file.
        experiment: The pretraining run.
        findings: Results of the probes.
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
        f"{counted(SHOWN, 'row')} of six crops: of a source frame and its target the motion crop, "
        "and two of a window in it. Objects have moved, and have other colours.",
    )
    _report_recognition(report, findings)
    _report_motion(report, findings)
    _report_heatmaps(report, findings.heatmaps)
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
    report.paragraph(
        "Follow a point with this network, watch its training, or plan a run on your own video:"
    )
    report.code(
        f"midway track {shlex.quote(str(video))} --point 60,50 --network {network} "
        f"-o {here}/tracks.mp4\n"
        f"tensorboard --logdir {network}\n"
        "midway train own.midway_tiny --data.root DIR --plan"
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
        for name, key in (("total", "loss"), ("invariance", "dino_loss"), ("dense", "dense_loss"))
        if first[key] is not None and last[key] is not None
    ]
    return f"Two plots of losses from step {first['step']} to {last['step']}: {', '.join(changes)}."


def _report_recognition(report: Report, findings: Findings) -> None:
    report.heading("Recognition")
    report.paragraph(
        f"Objects belong to {len(SHAPE_CLASSES) - 1} classes, which differ in the arrangement of "
        "their parts. Colours and textures are drawn anew for each object, and fade as it moves. "
        "A linear probe and nearest neighbours classify the frozen features of each patch. "
        "Predicting the background everywhere has an mIoU of "
        f"{findings.chance:.1f} %. docs/RESULTS.md has scores of several seeds."
    )
    report.table(
        ("", "linear mIoU, %", "pixel accuracy, %", "k-NN mIoU, %"),
        [
            (name, f"{s.linear.miou:.1f}", f"{s.linear.accuracy:.1f}", f"{s.knn.miou:.1f}")
            for name, s in findings.recognition.items()
        ],
    )
    if REFERENCE:
        report.paragraph(
            "For comparison, these arms were not run now. They are the means of "
            f"{MEASURED}, by the same readouts on the same worlds: {COMMAND}"
        )
        report.table(
            ("measured before", "linear mIoU, %", "k-NN mIoU, %"),
            [(name, f"{linear:.1f}", f"{knn:.1f}") for name, (linear, knn) in REFERENCE.items()],
        )
    predicted = {
        name: score.predictions[:SHOWN].numpy() for name, score in findings.recognition.items()
    }
    images, truth = (x[:SHOWN].numpy() for x in (findings.test.images, findings.test.classes))
    right = [f"{name} {100 * (each == truth).mean():.0f} %" for name, each in predicted.items()]
    report.figure(
        lambda width: pictures.segmentation(images, truth, predicted, SHAPE_CLASSES, width=width),
        "Test images, ground truth, and predictions of the linear probes.",
        f"{counted(SHOWN, 'test image')} with objects, their classes as colours, and the predicted "
        f"classes. Pixels that agree with the truth: {', '.join(right)}.",
    )


def _report_motion(report: Report, findings: Findings) -> None:
    pairs, motions = findings.pairs, findings.motion
    source, target, flow = (x[:SHOWN].numpy() for x in (pairs.source, pairs.target, pairs.flow))
    report.heading("Motion")
    report.paragraph(
        "A ridge regression predicts the motion of each patch from the midway path's tokens, and "
        f"the camera's from the motion latents, over {GAP_SECONDS} s. Motion does not emerge in "
        "this run; docs/MOTION.md has a recipe in which it does. 'Explained' is the explained "
        "variance: 1 is perfect, 0 equals the mean motion, and below 0 is worse."
    )
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


def _report_heatmaps(report: Report, heatmaps: Heatmaps) -> None:
    pairs, points = heatmaps.pairs, np.array(heatmaps.points)
    source, target, flow = (x.numpy() for x in (pairs.source, pairs.target, pairs.flow))
    moved = points + np.stack([flow[i, y, x] for i, (x, y) in enumerate(points)])
    report.paragraph(
        f"The packaged network {SHIPPED} was trained longer, on other worlds, and motion has "
        f"emerged in it. Its heatmaps are on new worlds of its kind, {HEATMAP_GAP_SECONDS} s apart."
    )
    maps = heatmaps.maps.numpy()
    shown = {f"target, {SHIPPED}": maps}
    report.figure(
        lambda width: pictures.heatmaps(
            source, target, points, shown, moved, width=min(width, HEATMAP_INCHES)
        ),
        "Forwarded feature perturbation: effect of perturbing the outlined source patch on the "
        "predicted target.",
        f"{counted(len(points), 'source frame')} with an outlined patch, and heatmaps over the "
        "grey targets. Their hottest patches, marked by white crosses, are on average "
        f"{_distance(maps, moved, source.shape[1:3]):.1f} pixels from the true places.",
    )


def _distance(maps: NDArray[Any], moved: NDArray[Any], size: Sequence[int]) -> float:
    """Return the mean distance in pixels of the hottest patches from points, (N, 2)."""
    rows, columns = maps.shape[1:]
    row, column = np.unravel_index(maps.reshape(len(maps), -1).argmax(1), (rows, columns))
    patch = np.array([size[1] / columns, size[0] / rows])
    hottest = (np.stack([column, row], axis=1) + 0.5) * patch - 0.5
    return float(np.hypot(*(hottest - moved).T).mean())


def _motion_row(name: str, motion: MotionScore) -> tuple[str, ...]:
    scores = (motion.flow, motion.camera)
    return (name, *(text for s in scores for text in (f"{s.epe:.2f}", f"{s.explained:z.2f}")))


def _guess_row(motion: MotionScore) -> tuple[str, ...]:
    return ("mean motion", f"{motion.flow.epe_mean:.2f}", "0", f"{motion.camera.epe_mean:.2f}", "0")


def _views(experiment: Experiment) -> dict[str, Tensor]:
    """Return the motion crops and the global crops of the run's first batch."""
    spec = method_of(experiment).views.spec()
    data = replace(experiment.data, num_workers=0)
    batch = next(clip_loader(replace(experiment, data=data), spec).batches(0, 1))
    views = batch.render(spec).views
    return {name: views[name] for name in ("motion", "globals")}
