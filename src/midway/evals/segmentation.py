"""Semantic segmentation with a trained readout, by the protocols of the paper."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from midway.data.segmentation.find import find_labelled
from midway.data.segmentation.images import LabelledImages
from midway.data.segmentation.loader import SegmentationLoader, WholeImage, whole_images
from midway.errors import INTERRUPTED
from midway.evals.metrics.segmentation import SegmentationMetric, scores
from midway.evals.readouts.inference import classes_at, predict_logits
from midway.evals.readouts.segmentation import SegmentationReadout, synchronise_norms
from midway.evals.readouts.segmentation_pictures import (
    score_table,
    shown_indices,
    write_confusion,
    write_picture,
)
from midway.evals.readouts.segmentation_protocols import (
    PROTOCOLS,
    SegmentationConfig,
    config_from_json,
)
from midway.evals.readouts.segmentation_run import keep_classes
from midway.evals.results import (
    complete,
    open_expected,
    seconds_trained,
    weights_of,
    write_results,
)
from midway.nn.device import ranks
from midway.nn.eval_mode import evaluating
from midway.progress import progress

if TYPE_CHECKING:
    from lightning_fabric import Fabric


__all__ = ["PROTOCOLS", "config_from_json", "evaluate", "report"]


def evaluate(config: SegmentationConfig, *, resume: bool = False) -> dict[str, Any] | None:
    """Train a readout on a network's features, and score it on the test images.

    Besides the files of every run, the run folder contains ``results.json``, ``pictures`` and
    ``confusion.png``.

    Args:
        config: Protocol, network and data.
        resume: Continue training the readout in ``config.run.folder``.

    Returns:
        Contents of ``results.json``; None in all processes but the first. For an interrupted run,
        its folder and exit code.

    Raises:
        MidwayError: The data or network is unusable, or the run folder is not empty.

    """
    from midway.train.training import Trained, launch_and_fit  # importing Fabric takes seconds

    config, opened = open_expected(config)
    train, test = _labelled(config)
    version, folder = config.version(), config.run.folder
    readout = SegmentationReadout(opened.encoder, config.readout, len(train.class_names))

    def build(fabric: "Fabric") -> Trained:
        if fabric.world_size > 1:
            synchronise_norms(readout, fabric)
        if fabric.is_global_zero:
            keep_classes(folder, train.classes)
        loader = SegmentationLoader(train, config.data, seed=config.run.seed, **ranks(fabric))
        return Trained(objective=readout, loader=loader)

    summary, fabric = launch_and_fit(config, build, resume=resume)
    if summary.interrupted:
        interrupted = {"folder": str(folder), "interrupted": True, "exit_code": INTERRUPTED}
        return interrupted if summary.is_main else None
    start = time.perf_counter()
    confusion = _test(readout, test, config, fabric)
    seconds = round(time.perf_counter() - start, 1)
    if not summary.is_main:
        return None
    results = complete(
        {
            "encoder": asdict(config.encoder),
            **scores(confusion, test.class_names),
            "images": {"train": len(train), "test": len(test)},
            "steps": summary.steps,
            "seed": config.run.seed,
            "folder": str(folder),
        },
        protocol=config.protocol,
        version_hash=version,
        weights=weights_of(opened),
        device=fabric.device,
        seconds={"train": seconds_trained(folder), "test": seconds},
    )
    write_confusion(folder / "confusion.png", confusion, test.class_names)
    write_results(folder, results)
    return results


def report(results: dict[str, Any]) -> str:
    """Format results as a table, or as a hint to resume an interrupted run."""
    folder = results["folder"]
    if results.get("interrupted"):
        return f"interrupted; continue with --resume {folder}"
    return f"{score_table(results)}\n{Path(folder) / 'results.json'}"


def _labelled(config: SegmentationConfig) -> tuple[LabelledImages, LabelledImages]:
    """Find the images of both splits; wrong labels are errors before the training."""
    train, test = find_labelled(config.data, "train"), find_labelled(config.data, "val")
    for split in (train, test):
        split.require_labels()
    return train, test


def _test(
    readout: SegmentationReadout, test: LabelledImages, config: SegmentationConfig, fabric: "Fabric"
) -> torch.Tensor:
    """Compute the confusion matrix of the test images, which are split over the processes."""
    from midway.train.run import autocast

    shown = shown_indices(len(test), config.num_pictures)
    metric = SegmentationMetric(len(test.class_names), fabric.device)
    with evaluating(readout):
        images = whole_images(test, config.data, **ranks(fabric))
        if fabric.is_global_zero:  # one bar for all ranks
            images = progress(images, "test images", -(-len(test) // fabric.world_size))
        for each in images:
            with autocast(fabric.device, config.run):
                logits = predict_logits(
                    lambda images: readout.outputs(images)[0],
                    each.image.to(fabric.device),
                    config.inference,
                )
            labels = each.labels.to(fabric.device)
            predicted = classes_at(logits, (labels.shape[0], labels.shape[1]))
            metric.add(predicted, labels)
            if each.index in shown:
                _draw(test, each, predicted, config.run.folder)
    return metric.confusion()


def _draw(test: LabelledImages, each: WholeImage, predicted: torch.Tensor, folder: Path) -> None:
    image, classes = test.read(each.index)
    name = test[each.index].name.replace("/", "_")
    write_picture(
        folder / "pictures" / f"{name}.png",
        np.asarray(image),
        classes,
        predicted.cpu().numpy().astype(np.uint8),
        test.classes,
    )
