"""Semantic segmentation by k-nearest neighbours of frozen patch features, without training.

The method is the dense nearest-neighbour readout of Hummingbird (Balazevic et al., 2023). A memory
of labelled patches is sampled from the training images. The class of a test patch is the weighted
vote of its nearest neighbours in the memory.

Unlike Hummingbird, the mean feature of the memory is subtracted before the comparison, because it
dominates the cosine similarity after short trainings.
"""

import time
from collections.abc import Callable
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from midway.data.segmentation.find import find_labelled
from midway.data.segmentation.images import SegmentationData, WalkingToursData
from midway.data.segmentation.layouts import FOLDER
from midway.data.segmentation.loader import whole_images
from midway.errors import MidwayError, counted
from midway.evals.metrics.segmentation import SegmentationMetric, scores
from midway.evals.probes.knn import KnnConfig, build_memory, predict, side_by_side
from midway.evals.readouts.segmentation_pictures import score_table, write_confusion
from midway.evals.readouts.segmentation_protocols import own_labels
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.weights.sources import open_encoder
from midway.nn.device import pick_device
from midway.progress import progress

VERSION = 1
"""Version of the code; increased if it computes different results from the same options."""


def _presets() -> dict[str, Callable[[], KnnConfig]]:
    scenes: dict[str, Any] = {"test_scale": (2048, 512)}
    datasets = (
        SegmentationData(dataset="bdd100k"),
        SegmentationData(dataset="cityscapes"),
        SegmentationData(dataset="ade20k", **scenes),
        WalkingToursData(dataset="wt_sem", **scenes),
        *(SegmentationData(dataset=name) for name in ("voc", "mapillary", "mapillary_v2", FOLDER)),
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
    """Score a network by the nearest neighbours of its patch features.

    Raises:
        MidwayError: The data or network is unusable, or no training pixel is labelled.

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
        progress(whole_images(train, config.data), "training images", len(train)),
        config,
        num_classes=len(train.class_names),
        per_image=max(1, config.memory_size // len(train)),
    )
    built = time.perf_counter()
    metric = SegmentationMetric(len(test.class_names), device)
    predicted = partial(predict, encoder, memory, config=config)
    images = progress(whole_images(test, config.data), "test images", len(test))
    for each, classes in side_by_side(predicted, images, device):
        metric.add(classes, each.labels.to(device))
    confusion = metric.confusion()
    source = asdict(replace(config.encoder, weights_sha256=opened.weights_sha256))
    settings = _settings(config)
    own = own_labels(config.data)
    results = complete(
        {
            "encoder": source,
            **scores(confusion, test.class_names),
            "images": {"train": len(train), "test": len(test)},
            "memory": len(memory.features),
            "seed": config.seed,
        },
        protocol=f"knn {config.protocol}",
        version_hash=protocol_version(
            VERSION, settings | {"dataset": config.data.dataset, "seed": config.seed} | own
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
    """Format results as a table."""
    seconds = results["seconds"]
    return (
        f"{score_table(results)}\n"
        f"{counted(results['memory'], 'patch', 'patches')} stored in {seconds['memory']} s, "
        f"{counted(results['images']['test'], 'image')} scored in {seconds['test']} s"
    )


def _claim(folder: Path) -> None:
    """Create the results folder before the evaluation, which takes minutes.

    Raises:
        MidwayError: The folder belongs to a run, or cannot be created.
    """
    if (folder / "config.json").exists():
        raise MidwayError(f"--folder {folder}: is a run folder; give another")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise MidwayError(f"--folder {folder}: {error.strerror}; give another") from None


def _settings(config: KnnConfig) -> dict[str, Any]:
    names = ("level", "neighbours", "temperature", "memory_size", "precision")
    return {name: getattr(config, name) for name in names} | {"scale": config.data.test_scale}
