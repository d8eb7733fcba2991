"""Optical flow on a dataset: endpoint error of a finetuned network, or of one without training.

The measures and the tiles are those of CroCo v2's published code, as in section 4.1 of the paper.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro
from PIL import Image

from midway.data.flow.datasets import FlowExample, FlowPair, list_pairs, load_pair
from midway.errors import MidwayError
from midway.evals.metrics.flow import PairErrors, Scores, pair_errors
from midway.evals.readouts.flow_scores import flow_picture
from midway.evals.results import (
    NO_WEIGHTS,
    complete,
    protocol_version,
    weights_of_run,
    write_results,
)
from midway.models.flow.predictor import FlowMethod, Predictor, flow_predictor
from midway.nn.device import pick_device

VERSION = 1
"""Raised when the code makes something else of the same options."""
FINETUNED = FlowMethod()

Dataset = Literal[
    "sintel", "things", "chairs", "tartanair", "kitti", "spring", "middlebury", "synthetic"
]


@dataclass(frozen=True, kw_only=True)
class FlowRoot:
    """Where a dataset is."""

    root: Path
    """Folder of the dataset as it is unpacked."""


def evaluate(
    *,
    dataset: Dataset,
    data: FlowRoot,
    split: str = "all",
    how: Annotated[FlowMethod, tyro.conf.OmitArgPrefixes] = FINETUNED,
    folder: Path | None = None,
    num_pictures: int = 8,
) -> dict[str, Any]:
    """Endpoint error of optical flow on a dataset.

    Args:
        dataset: Its layout.
        data: Where it is.
        split: A split of it, such as subval; with -clean or -final behind it, of one rendering.
        how: How flow is found.
        folder: For results.json and pictures of evenly chosen pairs; none are written without.
        num_pictures: How many.

    Raises:
        MidwayError: The data or the network cannot be read, or an option makes no sense.
    """
    if num_pictures < 0:
        raise MidwayError(f"num_pictures = {num_pictures}; give 0 or more")
    start = time.monotonic()
    pairs = list_pairs(dataset, data.root, split)
    pictures = folder / "pictures" if folder else None
    scores = score_pairs(pairs, flow_predictor(how), pictures=pictures, num_pictures=num_pictures)
    settings = {"dataset": dataset, "split": split, "method": how.method, **how.settings()}
    results = complete(
        {
            **settings,
            "network": None if how.network is None else str(how.network),
            **results_of(scores),
        },
        protocol=f"flow {dataset} {split}",
        version_hash=protocol_version(VERSION, settings),
        weights=NO_WEIGHTS if how.network is None else weights_of_run(how.network),
        device=pick_device(),
        seconds=time.monotonic() - start,
    )
    if folder:
        write_results(folder, results)
    return results


def score_pairs(
    pairs: Sequence[FlowPair],
    predict: Predictor,
    *,
    pictures: Path | None = None,
    num_pictures: int = 0,
) -> Scores:
    """Errors of all pairs, in groups by sequence and by rendering.

    Args:
        pairs: Read one at a time.
        predict: Finds the flow of a pair.
        pictures: Folder for pictures of evenly chosen pairs.
        num_pictures: At most so many.

    Raises:
        MidwayError: A file is missing or damaged, or a pair cannot be scored; names the file.
    """
    scores = Scores()
    shown = set(np.linspace(0, len(pairs) - 1, num_pictures).round().astype(int).tolist())
    for number, pair in enumerate(pairs):
        example = load_pair(pair)
        predicted = predict(example.source, example.target)
        errors = _errors(pair, example, predicted)
        scores.add(errors, sequence=pair.sequence, rendering=pair.rendering)
        if pictures and number in shown:
            pictures.mkdir(parents=True, exist_ok=True)
            name = "_".join(filter(None, (pair.sequence, pair.rendering, Path(pair.flow).stem)))
            image = Image.fromarray(flow_picture(example, predicted))
            image.save(pictures / f"{number:05d}_{name.replace('/', '_')}.png")
    return scores


def _errors(pair: FlowPair, example: FlowExample, predicted: Any) -> PairErrors:
    try:
        return pair_errors(predicted, example.flow, example.occluded)
    except MidwayError as error:
        raise MidwayError(f"{pair.flow}: {error}") from None


def results_of(scores: Scores) -> dict[str, Any]:
    """Plain values of all scores; what no pixel tells is None."""
    total = scores.total()
    return {
        "pairs": total.num_pairs,
        "epe": total.epe,
        "by_pixels": {name: x if isfinite(x) else None for name, x in total.by_pixels.items()},
        "sequences": scores.epe_by_sequence(),
        "renderings": scores.epe_by_rendering(),
    }


def report(results: Mapping[str, Any]) -> str:
    """Results as a short table for people."""
    if "epe" not in results:
        return f"interrupted after {results['steps']} steps: {results['run']}"
    told = [f"{name} {x:.2f}" for name, x in results["by_pixels"].items() if x is not None]
    groups = results["renderings"] | results["sequences"]
    return "\n".join(
        [
            f"EPE {results['epe']:.3f} px, mean over {results['pairs']} pairs",
            f"  {'  '.join(told)}",
            *(f"  {name:<24} {epe:8.3f}" for name, epe in groups.items()),
        ]
    )
