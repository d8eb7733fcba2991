"""Flow evaluation: scores of all pairs of a dataset, pictures, and the table of results."""

from collections.abc import Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from numpy.typing import NDArray
from PIL import Image

from midway.analysis.lettering import enlarged, side_by_side, whole_factor, with_wheel
from midway.atomic import write_picture
from midway.data.flow.checks import is_known
from midway.data.flow.colours import flow_to_rgb, longest_pixels
from midway.data.flow.pairs import FlowExample, FlowPair, load_pair
from midway.errors import MidwayError, counted
from midway.evals.metrics.flow import PairErrors, Scores, pair_errors
from midway.models.flow.predictor import Predictor
from midway.progress import progress

ERROR_SHARE = 0.5
"""Error at the end of the colour map, as a share of the longest true motion."""


def flow_picture(example: FlowExample, predicted: NDArray[Any]) -> NDArray[np.uint8]:
    """Draw a pair with its true flow, predicted flow and error, each below its name.

    The first row has source, target and their average, the second row true flow, predicted flow
    and endpoint error. Both flows are normalised by the longest true motion, which is the rim of
    the colour wheel. The error goes from black over red to pale yellow at half that length. Pixels
    without ground truth are black. Small images are enlarged by a whole factor.

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
    factor = whole_factor(example.source)
    truth, guess = (
        enlarged(flow_to_rgb(flow, longest), factor) for flow in (example.flow, predicted)
    )
    images = {
        "source": example.source,
        "target": example.target,
        "average": (example.source // 2) + (example.target // 2),
    }
    frames = [(name, enlarged(image, factor)) for name, image in images.items()]
    error = enlarged(np.rint(255 * heat).astype(np.uint8), factor)
    flows = [
        ("true flow", truth),
        ("predicted flow", with_wheel(guess, longest)),
        (f"error, yellow from {ERROR_SHARE * longest:.1f} px", error),
    ]
    return np.concatenate([side_by_side(frames), side_by_side(flows)])


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
