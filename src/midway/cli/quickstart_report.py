"""Figures and HTML report of the quickstart."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

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
    _report_recognition(report, findings)
    _report_motion(report, findings)
    _report_heatmaps(report, findings.heatmaps)
    report.write(path)


def _report_recognition(report: Report, findings: Findings) -> None:
    report.heading("Recognition")
    report.paragraph(
        f"Objects belong to {len(SHAPE_CLASSES) - 1} classes, which differ in the arrangement of "
        "their parts. Colours and textures are drawn anew for each object. A linear probe and "
        "nearest neighbours classify the frozen features of each patch. Predicting the background "
        f"everywhere has an mIoU of {findings.chance:.1f} %."
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
    report.figure(
        pictures.segmentation(images, truth, predicted, SHAPE_CLASSES),
        "Test images, ground truth, and predictions of the linear probes.",
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
    flows = {name: motion.predicted_flow[:SHOWN].numpy() for name, motion in motions.items()}
    report.figure(
        pictures.flow(source, target, flow, flows),
        "Pairs, ground-truth flow, and flow of patches predicted by the probes.",
    )


def _report_heatmaps(report: Report, heatmaps: Heatmaps) -> None:
    pairs, points = heatmaps.pairs, np.array(heatmaps.points)
    source, target, flow = (x.numpy() for x in (pairs.source, pairs.target, pairs.flow))
    moved = points + np.stack([flow[i, y, x] for i, (x, y) in enumerate(points)])
    report.paragraph(
        f"The packaged network {SHIPPED} was trained longer, on other worlds, and motion has "
        f"emerged in it. Its heatmaps are on new worlds of its kind, {HEATMAP_GAP_SECONDS} s apart."
    )
    report.figure(
        pictures.heatmaps(source, target, points, {SHIPPED: heatmaps.maps.numpy()}, moved),
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
