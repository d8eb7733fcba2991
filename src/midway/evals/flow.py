"""Optical flow on a dataset: endpoint error of a finetuned network, or of one without training.

The measures and the tiles are those of CroCo v2's published code, as in section 4.1 of the paper.
"""

import hashlib
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image

from midway.atomic import write_atomically
from midway.data.flow_sets import FlowExample, FlowPair, list_pairs, load_pair
from midway.errors import MidwayError
from midway.evals.flow_metrics import PairErrors, Scores, pair_errors
from midway.evals.flow_pictures import flow_picture
from midway.models.flow import BEST
from midway.models.flow_predictor import FlowMethod, Method, Predictor, flow_predictor

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
    method: Method = "finetuned",
    run: Path | None = None,
    overlap: float = 0.9,
    tiles_at_once: int = 8,
    level: int = 3,
    radius: int = 5,
    folder: Path | None = None,
    num_pictures: int = 8,
) -> dict[str, Any]:
    """Endpoint error of optical flow on a dataset.

    Args:
        dataset: Its layout.
        data: Where it is.
        split: A split of it, such as subval; with -clean or -final behind it, of one rendering.
        method: No motion; matching of pixels, of a pretrained network's features, or of what its
            dynamics predict; a finetuned flow network.
        run: Folder or file of the network, for all but zero and pixels.
        overlap: Share of a tile that the next one covers again (finetuned).
        tiles_at_once: Tiles that the network sees at once (finetuned).
        level: Encoder level that is matched (features, dynamics).
        radius: How far to look, in patches (features, dynamics).
        folder: For results.json and pictures of evenly chosen pairs; none are written without.
        num_pictures: How many.
    """
    how = FlowMethod(
        method=method,
        run=run,
        overlap=overlap,
        tiles_at_once=tiles_at_once,
        level=level,
        radius=radius,
    )
    start = time.monotonic()
    pairs = list_pairs(dataset, data.root, split)
    pictures = folder / "pictures" if folder else None
    scores = score_pairs(pairs, flow_predictor(how), pictures=pictures, num_pictures=num_pictures)
    results = {
        "dataset": dataset,
        "split": split,
        "method": method,
        "run": None if run is None else str(run),
        "overlap": overlap if method == "finetuned" else None,
        **results_of(scores),
        "seconds": time.monotonic() - start,
    }
    if folder:
        write_results(folder, results, run=run)
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


def write_results(folder: Path, results: dict[str, Any], *, run: Path | None) -> None:
    """Write `results.json`: the results, with the version, the date and what the weights were."""
    told = {
        **results,
        "midway": version("midway-network"),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "weights_sha256": None if run is None else _sha256(run),
    }
    folder.mkdir(parents=True, exist_ok=True)
    text = json.dumps(told, indent=2) + "\n"
    write_atomically(folder / "results.json", lambda file: file.write(text.encode()))


def _sha256(run: Path) -> str | None:
    """Of the weights' file; None for a network of the hub."""
    files = [run, run / BEST, *sorted(run.glob("checkpoints/*.ckpt"), reverse=True)]
    for path in files:
        if path.is_file():
            with path.open("rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
    return None
