"""Flow evaluation: scores of all pairs of a dataset, pictures, and the table of results."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from midway.atomic import write_picture
from midway.data.flow.checks import is_known
from midway.data.flow.colours import flow_to_rgb, longest_pixels
from midway.data.flow.pairs import FlowExample, FlowPair, load_pair
from midway.errors import MidwayError, counted
from midway.evals.metrics.flow import PairErrors, Scores, pair_errors
from midway.models.flow.predictor import Predictor
from midway.progress import progress

GAP_PIXELS = 4
"""Width of the white gap between the images of a picture."""
ERROR_SHARE = 0.5
"""Error at the end of the colour map, as a share of the longest true motion."""


def flow_picture(example: FlowExample, predicted: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw a pair with its true flow, predicted flow and error.

    The first row has source, target and their average, the second row true flow, predicted flow
    and endpoint error. Both flows are normalised by the longest true motion. The error goes from
    black over red to pale yellow at half that length. Pixels without ground truth are black.

    Args:
        example: Pair with ground-truth flow.
        predicted: Flow in pixels, shape (height, width, 2).

    Returns:
        RGB image, uint8.
    """
    longest = longest_pixels(example.flow)
    known = is_known(example.flow)
    difference = predicted - np.where(known[..., None], example.flow, 0)
    share = np.hypot(difference[..., 0], difference[..., 1]) / (ERROR_SHARE * longest)
    heat = colormaps["inferno"](np.clip(share, 0, 1))[..., :3] * known[..., None]
    error = np.rint(255 * heat).astype(np.uint8)
    truth, guess = (flow_to_rgb(flow, longest) for flow in (example.flow, predicted))
    both = (example.source // 2) + (example.target // 2)
    rows = ([example.source, example.target, both], [truth, guess, error])
    return _joined([_joined(images, axis=1) for images in rows], axis=0)


def _joined(images: list[NDArray[np.uint8]], *, axis: int) -> NDArray[np.uint8]:
    shape = list(images[0].shape)
    shape[axis] = GAP_PIXELS
    gap = np.full(shape, 255, np.uint8)
    parts = [part for image in images for part in (gap, image)]
    return np.concatenate(parts[1:], axis=axis)


def score_pairs(
    pairs: Sequence[FlowPair],
    predict: Predictor,
    *,
    pictures: Path | None = None,
    num_pictures: int = 0,
) -> Scores:
    """Predict the flow of all pairs and collect the errors.

    Args:
        pairs: Pairs, read one at a time.
        predict: Flow predictor.
        pictures: Folder for pictures of evenly spaced pairs; none are written if None.
        num_pictures: Maximum number of pictures.

    Raises:
        MidwayError: A file is missing or damaged, or a pair cannot be scored. The message names
            the file.
    """
    scores = Scores()
    shown = set(np.linspace(0, len(pairs) - 1, num_pictures).round().astype(int).tolist())
    for number, pair in enumerate(progress(pairs, "pairs")):
        example = load_pair(pair)
        predicted = predict(example.source, example.target)
        errors = _errors(pair, example, predicted)
        scores.add(errors, sequence=pair.sequence, rendering=pair.rendering)
        if pictures and number in shown:
            pictures.mkdir(parents=True, exist_ok=True)
            name = "_".join(filter(None, (pair.sequence, pair.rendering, Path(pair.flow).stem)))
            image = Image.fromarray(flow_picture(example, predicted))
            write_picture(pictures / f"{number:05d}_{name.replace('/', '_')}.png", image)
    return scores


def _errors(pair: FlowPair, example: FlowExample, predicted: Any) -> PairErrors:
    try:
        truth = example.flow if example.fine is None else example.fine
        return pair_errors(predicted, truth, example.occluded)
    except MidwayError as error:
        raise MidwayError(f"{pair.flow}: {error}") from None


def results_of(scores: Scores) -> dict[str, Any]:
    """Return all scores as JSON values; a metric that covers no pixel is None."""
    total = scores.total()
    return {
        "pairs": total.num_pairs,
        "epe": total.epe,
        "by_pixels": {name: x if isfinite(x) else None for name, x in total.by_pixels.items()},
        "sequences": scores.epe_by_sequence(),
        "renderings": scores.epe_by_rendering(),
    }


def report(results: Mapping[str, Any]) -> str:
    """Format results as a short table."""
    if "epe" not in results:
        return f"interrupted after {counted(results['steps'], 'step')}: {results['run']}"
    metrics = [f"{name} {x:.2f}" for name, x in results["by_pixels"].items() if x is not None]
    groups = results["renderings"] | results["sequences"]
    tests = results.get("tests", {})
    return "\n".join(
        [
            f"EPE {results['epe']:.3f} px, mean over {counted(results['pairs'], 'pair')}",
            f"  {'  '.join(metrics)}",
            *(f"  {name:<24} {epe:8.3f}" for name, epe in groups.items()),
            *(f"{name}: {report(each)}" for name, each in tests.items()),
        ]
    )
