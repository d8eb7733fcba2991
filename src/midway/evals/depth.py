"""Monocular depth with a linear probe over bins, as in DINOv2: RMSE, AbsRel and delta1 on NYU."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from midway.atomic import write_atomically
from midway.data.depth.images import (
    EIGEN_CROP,
    NEAREST_METRES,
    NYU_SIZE,
    DepthData,
    DepthImage,
    find_depth,
    is_known,
    require_depth,
)
from midway.data.depth.loader import DepthLoader, whole_depth
from midway.data.segmentation.loader import as_input
from midway.errors import INTERRUPTED, counted
from midway.evals.metrics.depth import DepthMetric
from midway.evals.readouts.depth import DepthReadout
from midway.evals.readouts.depth_protocols import PROTOCOLS, DepthConfig, config_from_json
from midway.evals.readouts.segmentation_pictures import shown_indices
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


def evaluate(config: DepthConfig, *, resume: bool = False) -> dict[str, Any] | None:
    """Train a depth readout on a network's features, and score it on the test images.

    Besides the files of every run, the run folder contains ``results.json`` and ``pictures``.

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
    train, test = find_depth(config.data, "train"), find_depth(config.data, "val")
    for split in (train, test):
        require_depth(split, config.data)
    readout = DepthReadout(opened.encoder, config.readout, config.data)

    def build(fabric: "Fabric") -> Trained:
        loader = DepthLoader(train, config.data, seed=config.run.seed, **ranks(fabric))
        return Trained(objective=readout, loader=loader)

    summary, fabric = launch_and_fit(config, build, resume=resume)
    folder = str(config.run.folder)
    if summary.interrupted:
        interrupted = {"folder": folder, "interrupted": True, "exit_code": INTERRUPTED}
        return interrupted if summary.is_main else None
    start = time.perf_counter()
    metric = _test(readout, test, config, fabric)
    score = metric.score()
    if not summary.is_main:
        return None
    results = complete(
        {
            "encoder": asdict(config.encoder),
            **asdict(score),
            "images": {"train": len(train), "test": len(test)},
            "steps": summary.steps,
            "seed": config.run.seed,
            "folder": folder,
        },
        protocol=config.protocol,
        version_hash=config.version(),
        weights=weights_of(opened),
        device=fabric.device,
        seconds={
            "train": seconds_trained(config.run.folder),
            "test": round(time.perf_counter() - start, 1),
        },
    )
    write_results(config.run.folder, results)
    return results


def report(results: dict[str, Any]) -> str:
    """Format results as a line, or as a hint to resume an interrupted run."""
    folder = results["folder"]
    if results.get("interrupted"):
        return f"interrupted; continue with --resume {folder}"
    return (
        f"RMSE {results['rmse']:.3f} m, AbsRel {results['abs_rel']:.3f}, delta1 "
        f"{results['delta1']:.1f} %, {counted(results['images']['test'], 'image')}\n"
        f"{Path(folder) / 'results.json'}"
    )


def _test(
    readout: DepthReadout, test: Sequence[DepthImage], config: DepthConfig, fabric: "Fabric"
) -> DepthMetric:
    """Score the test images, which are split over the processes."""
    from midway.train.run import autocast

    metric = DepthMetric(fabric.device)
    shown = shown_indices(len(test), config.num_pictures)
    with evaluating(readout):
        images = whole_depth(test, config.data, **ranks(fabric))
        if fabric.is_global_zero:  # one bar for all ranks
            images = progress(images, "test images", -(-len(test) // fabric.world_size))
        for index, image, depth in images:
            with autocast(fabric.device, config.run):
                predicted = readout.depth(as_input(image)[None].to(fabric.device))[0]
            predicted = predicted.clamp(NEAREST_METRES, config.data.max_metres).cpu()
            scored = torch.from_numpy(is_scored(depth, config.data))
            metric.add(predicted[scored], torch.from_numpy(depth)[scored])
            if index in shown:
                name = test[index].name.replace("/", "_")
                path = config.run.folder / "pictures" / f"{name}.png"
                write_depth_picture(path, image, depth, predicted.numpy(), config.data.max_metres)
    return metric


def is_scored(depth: NDArray[np.float32], data: DepthData) -> NDArray[np.bool_]:
    """Return a mask (height, width) of known depth inside the scored crop."""
    known = is_known(depth, data)
    if not data.eigen_crop or depth.shape != NYU_SIZE:
        return known
    inside = np.zeros_like(known)
    inside[EIGEN_CROP] = known[EIGEN_CROP]
    return inside


def write_depth_picture(
    path: Path,
    image: NDArray[np.uint8],
    truth: NDArray[np.float32],
    predicted: NDArray[np.float32],
    max_metres: float,
) -> None:
    """Write a PNG of an image, its true and its predicted depth on one scale.

    Args:
        path: File to write.
        image: RGB (height, width, 3).
        truth: Depth in metres (height, width); 0, unknown, is white.
        predicted: Depth in metres (height, width).
        max_metres: Depth at the end of the colour scale.

    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 0.6 + 3.4 * len(image) / image.shape[1]), layout="constrained")
    axes = figure.subplots(1, 3)
    axes[0].imshow(image)
    known = np.where(truth > 0, truth, np.nan)
    _, drawn = (
        panel.imshow(depth, cmap="viridis_r", vmin=0, vmax=max_metres)
        for panel, depth in zip(axes[1:], (known, predicted), strict=True)
    )
    for panel, title in zip(axes, ("image", "truth", "prediction"), strict=True):
        panel.set_title(title, fontsize=9)
        panel.set_axis_off()
    figure.colorbar(drawn, ax=axes, label="depth in m", shrink=0.9)
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=120)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, lambda file: file.write(buffer.getvalue()))
