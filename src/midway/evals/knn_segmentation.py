"""Segmentation without training: patches take the labels of their nearest neighbours.

The dense nearest-neighbour readout of Hummingbird (Balazevic et al., 2023): a memory of labelled
patches is drawn from the training images; each patch of a test image lets its neighbours in it
vote. It compares networks in minutes, also while they train.

Here the mean feature of the memory is taken from all before they are compared: what all patches
share tells none apart, and in short trainings it is nearly all of a feature.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from midway.data.segmentation.images import SegmentationData, WalkingToursData, find_labelled
from midway.data.segmentation.loader import whole_images
from midway.errors import MidwayError
from midway.evals.metrics.segmentation import SegmentationMetric, scores
from midway.evals.probes.knn import KnnConfig, build_memory, predict, side_by_side
from midway.evals.readouts.segmentation_pictures import score_table, write_confusion
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.weights.sources import open_encoder
from midway.nn.device import pick_device

VERSION = 1
"""Raised when the code computes something else from the same options."""


def _presets() -> dict[str, Callable[[], KnnConfig]]:
    scenes: dict[str, Any] = {"test_scale": (2048, 512)}
    datasets = (
        SegmentationData(dataset="bdd100k"),
        SegmentationData(dataset="cityscapes"),
        SegmentationData(dataset="ade20k", **scenes),
        WalkingToursData(dataset="wt_sem", **scenes),
        SegmentationData(dataset="camvid", num_workers=1),
        SegmentationData(dataset="synthetic", num_workers=1),
    )
    names = (data.dataset.replace("_", "-") for data in datasets)
    return {
        name: lambda name=name, data=data: KnnConfig(protocol=name, data=data)
        for name, data in zip(names, datasets, strict=True)
    }


PROTOCOLS = _presets()


def evaluate(config: KnnConfig) -> dict[str, Any]:
    """Score a network by the nearest neighbours of its patches.

    Raises:
        MidwayError: Unusable data or network, or no labelled training pixel.

    """
    torch.manual_seed(config.seed)
    opened = open_encoder(config.encoder)
    device = pick_device(config.accelerator)
    train, test = find_labelled(config.data, "train"), find_labelled(config.data, "val")
    if config.folder:
        _claim(config.folder)
    encoder = opened.encoder.to(device)
    start = time.perf_counter()
    memory = build_memory(
        encoder,
        whole_images(train, config.data),
        config,
        num_classes=len(train.class_names),
        per_image=max(1, config.memory_size // len(train)),
    )
    built = time.perf_counter()
    metric = SegmentationMetric(len(test.class_names), device)
    predicted = partial(predict, encoder, memory, config=config)
    for each, classes in side_by_side(predicted, whole_images(test, config.data), device):
        metric.add(classes, each.labels.to(device))
    confusion = metric.confusion()
    source = asdict(replace(config.encoder, weights_sha256=opened.weights_sha256))
    settings = _settings(config)
    results = complete(
        {
            "encoder": {**source, "checkpoint_sha256": opened.file_sha256},
            **scores(confusion, test.class_names),
            "images": {"train": len(train), "test": len(test)},
            "memory": len(memory.features),
            "seed": config.seed,
        },
        protocol=f"knn {config.protocol}",
        version_hash=protocol_version(
            VERSION, settings | {"dataset": config.data.dataset, "seed": config.seed}
        ),
        weights=weights_of(opened),
        device=device,
        seconds={
            "memory": round(built - start, 1),
            "test": round(time.perf_counter() - built, 1),
        },
    )
    results["protocol"] |= settings
    if config.folder:
        write_results(config.folder, results)
        write_confusion(config.folder / "confusion.png", confusion, test.class_names)
    return results


def report(results: dict[str, Any]) -> str:
    """What `evaluate` returned, for people."""
    seconds = results["seconds"]
    return (
        f"{score_table(results)}\n"
        f"{results['memory']} patches remembered in {seconds['memory']} s, "
        f"{results['images']['test']} images scored in {seconds['test']} s"
    )


def _claim(folder: Path) -> None:
    """Make the folder of the results, before minutes are spent on what goes there."""
    if (folder / "config.json").exists():
        raise MidwayError(f"--folder {folder}: is the folder of a run; give another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MidwayError(f"--folder {folder}: {error.strerror}; give another") from None


def _settings(config: KnnConfig) -> dict[str, Any]:
    names = ("level", "neighbours", "temperature", "memory_size", "precision")
    return {name: getattr(config, name) for name in names} | {"scale": config.data.test_scale}
