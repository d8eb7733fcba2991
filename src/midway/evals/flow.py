"""Optical flow: endpoint errors of a finetuned network or of matching without training.

Metrics and tiled inference follow CroCo v2's published code, as in section 4.1 of the paper.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from midway.data.flow.datasets import list_pairs
from midway.errors import MidwayError
from midway.evals.readouts.flow_scores import report as report
from midway.evals.readouts.flow_scores import results_of, score_pairs
from midway.evals.results import (
    NO_WEIGHTS,
    Weights,
    complete,
    protocol_version,
    weights_of,
    weights_of_flow,
    write_results,
)
from midway.models.flow.predictor import FlowMethod, flow_predictor, with_level
from midway.models.weights.sources import (
    EncoderSource,
    NetworkSource,
    open_encoder,
    open_network,
)
from midway.nn.device import pick_device

VERSION = 2
"""Version of the code; increased if it computes different results from the same options."""
FINETUNED = FlowMethod()

Dataset = Literal[
    "sintel",
    "things",
    "chairs",
    "tartanair",
    "kitti",
    "hd1k",
    "vkitti2",
    "spring",
    "middlebury",
    "synthetic",
    "folder",
]


@dataclass(frozen=True, kw_only=True)
class FlowRoot:
    """Location of a dataset."""

    root: Path
    """Folder of the unpacked dataset."""


def evaluate(
    *,
    dataset: Dataset,
    data: FlowRoot,
    split: str = "all",
    how: Annotated[FlowMethod, tyro.conf.OmitArgPrefixes] = FINETUNED,
    folder: Path | None = None,
    num_pictures: int = 8,
) -> dict[str, Any]:
    """Score optical flow on a dataset.

    Args:
        dataset: Dataset, in its original layout.
        data: Location of the dataset.
        split: Split of the dataset, such as subval; append -clean or -final for one rendering.
        how: Flow method.
        folder: Folder for results.json and pictures of evenly spaced pairs; if None, nothing is
            written.
        num_pictures: Maximum number of pictures.

    Raises:
        MidwayError: The data or the network cannot be read, or an option is invalid.
    """
    if num_pictures < 0:
        raise MidwayError(f"num_pictures = {num_pictures}; give 0 or more")
    start, how = time.monotonic(), with_level(how)
    pairs = list_pairs(dataset, data.root, split)
    pictures = folder / "pictures" if folder else None
    scores = score_pairs(pairs, flow_predictor(how), pictures=pictures, num_pictures=num_pictures)
    settings = {"dataset": dataset, "split": split, "method": how.method, **how.settings()}
    results = complete(
        {
            **settings,
            "network": how.network or None,
            **results_of(scores),
        },
        protocol=f"flow {dataset} {split}",
        version_hash=protocol_version(VERSION, settings),
        weights=_weights(how),
        device=pick_device(),
        seconds=time.monotonic() - start,
    )
    if folder:
        write_results(folder, results)
    return results


def _weights(how: FlowMethod) -> Weights:
    """Return the provenance of a method's weights."""
    if not how.network:
        return NO_WEIGHTS
    network = str(how.network)
    if how.method == "finetuned":
        return weights_of_flow(network)
    if how.method == "dynamics":
        return weights_of(open_network(NetworkSource(network=network, accelerator="cpu")))
    return weights_of(open_encoder(EncoderSource(network=network, weights="student")))
