"""Endpoint errors of optical flow, as defined by CroCo v2's published code."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Self

import numpy as np
from numpy.typing import NDArray

from midway.data.flow.checks import is_known
from midway.errors import MidwayError

BAD_PIXELS = (0.5, 1.0, 3.0, 5.0)
"""Thresholds t in pixels: `bad_t` is the share of pixels with an endpoint error above t."""
SPEED_BOUNDS = (10.0, 40.0)
"""Boundaries between slow, medium and fast motion, in pixels."""
KITTI_PIXELS, KITTI_SHARE = 3.0, 0.05
"""Thresholds of KITTI's outlier rate F1: absolute error in pixels, and error relative to the length
of the true flow. An outlier exceeds both."""


@dataclass(frozen=True, kw_only=True)
class PairErrors:
    """Sums of per-pixel errors over the known pixels of one pair."""

    sums: Mapping[str, float]
    """Sum of each metric over its pixels."""
    counts: Mapping[str, int]
    """Number of pixels that each metric covers."""

    @property
    def epe(self) -> float:
        """Mean endpoint error of the pair, in pixels."""
        return self.sums["epe"] / self.counts["epe"]


def pair_errors(
    predicted: NDArray[np.floating],
    truth: NDArray[np.floating],
    occluded: NDArray[np.bool_] | None = None,
) -> PairErrors:
    """Compute the errors of predicted flow at all pixels with known ground truth.

    Pixels with long flow vectors are included. Ground truth of a higher resolution is scored as in
    Spring's benchmark: the error of a pixel is the lowest over its vectors, and it is unknown if
    one of them is.

    Args:
        predicted: Shape (height, width, 2), in pixels.
        truth: Shape (stride * height, stride * width, 2), in pixels of the prediction; not finite
            where unknown.
        occluded: Mask of source pixels that are hidden in the target, shape (height, width); None
            if the dataset has no occlusion masks.

    Raises:
        MidwayError: The shapes do not fit, no pixel is known, or the prediction is not finite.
    """
    cells = _cells(predicted, truth)  # (height, width, stride^2, 2)
    known = is_known(cells).all(-1)
    if not known.any():
        raise MidwayError("ground-truth flow: no pixel is known; leave the pair out")
    if not np.isfinite(predicted[known]).all():
        raise MidwayError("predicted flow: is not finite; check the network's weights")
    true = cells[known].astype(np.float64)  # (pixels, stride^2, 2)
    differences = predicted[known][:, None] - true
    errors = np.hypot(differences[..., 0], differences[..., 1])
    best = errors.argmin(1)[:, None]
    error = np.take_along_axis(errors, best, axis=1)[:, 0]
    difference = np.take_along_axis(differences, best[..., None], axis=1)[:, 0]
    lengths = np.hypot(true[..., 0], true[..., 1])
    length, longest = lengths.mean(1), lengths.max(1)
    slow, fast = SPEED_BOUNDS
    everywhere = np.ones(len(error), bool)
    measures = {
        "epe": (error, everywhere),
        "l1": (np.abs(difference).sum(1), everywhere),
        **{f"bad_{t:g}": (100.0 * (error > t), everywhere) for t in BAD_PIXELS},
        "f1": (
            100.0 * ((error > KITTI_PIXELS) & (error > KITTI_SHARE * longest)),
            everywhere,
        ),
        "epe_0_10": (error, length < slow),
        "epe_10_40": (error, (length >= slow) & (length < fast)),
        "epe_40": (error, length >= fast),
    }
    if occluded is not None:
        hidden = occluded[known]
        measures |= {"epe_visible": (error, ~hidden), "epe_occluded": (error, hidden)}
    return PairErrors(
        sums={name: float(values[of].sum()) for name, (values, of) in measures.items()},
        counts={name: int(of.sum()) for name, (_, of) in measures.items()},
    )


def _cells(predicted: NDArray[np.floating], truth: NDArray[np.floating]) -> NDArray[np.floating]:
    """Return the true vectors of each predicted pixel, (height, width, stride^2, 2)."""
    height, width = predicted.shape[:2]
    stride = max(1, truth.shape[0] // max(1, height))
    if truth.shape != (stride * height, stride * width, 2) or predicted.shape[2:] != (2,):
        raise MidwayError(
            f"predicted flow: has shape {predicted.shape}, the ground truth has {truth.shape}; "
            "predict one vector per pixel"
        )
    cells = truth.reshape(height, stride, width, stride, 2).swapaxes(1, 2)
    return cells.reshape(height, width, stride**2, 2)


@dataclass(frozen=True, kw_only=True)
class FlowScore:
    """Flow metrics of a set of pairs."""

    num_pairs: int
    epe: float
    """Mean over pairs of the mean endpoint error per pair, in pixels."""
    by_pixels: Mapping[str, float]
    """Means over all known pixels of the set: `epe_pixels` and `l1` in pixels; `bad_0.5` to `bad_5`
    and `f1` in percent; `epe_0_10`, `epe_10_40` and `epe_40` by length of the true flow;
    `epe_visible` and `epe_occluded` if all pairs have occlusion masks. NaN if a metric covers no
    pixel."""

    @classmethod
    def of(cls, pairs: Sequence[PairErrors]) -> Self:
        """Aggregate the errors of pairs.

        Raises:
            MidwayError: There are no pairs.
        """
        if not pairs:
            raise MidwayError("flow score: no pairs; check the split")
        means = {}
        for name in pairs[0].sums:
            # Occlusion masks of some pairs would give a score of a part of the set.
            if not all(name in pair.sums for pair in pairs):
                continue
            count = sum(pair.counts[name] for pair in pairs)
            total = sum(pair.sums[name] for pair in pairs)
            means["epe_pixels" if name == "epe" else name] = total / count if count else nan
        epe = sum(pair.epe for pair in pairs) / len(pairs)
        return cls(num_pairs=len(pairs), epe=epe, by_pixels=means)


@dataclass(kw_only=True)
class Scores:
    """Accumulator of pair errors, with the sequence and rendering of each pair."""

    pairs: list[PairErrors] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    renderings: list[str] = field(default_factory=list)

    def add(self, errors: PairErrors, *, sequence: str = "", rendering: str = "") -> None:
        """Add a pair."""
        self.pairs.append(errors)
        self.sequences.append(sequence)
        self.renderings.append(rendering)

    def total(self) -> FlowScore:
        """Return the score of all pairs."""
        return FlowScore.of(self.pairs)

    def epe_by_sequence(self) -> dict[str, float]:
        """Return `FlowScore.epe` by sequence; pairs without a sequence are skipped."""
        return self._epe_by(self.sequences)

    def epe_by_rendering(self) -> dict[str, float]:
        """Return `FlowScore.epe` by rendering; pairs without a rendering are skipped."""
        return self._epe_by(self.renderings)

    def _epe_by(self, names: Sequence[str]) -> dict[str, float]:
        groups: dict[str, list[PairErrors]] = {name: [] for name in names if name}
        for name, pair in zip(names, self.pairs, strict=True):
            if name:
                groups[name].append(pair)
        return {name: FlowScore.of(pairs).epe for name, pairs in groups.items()}
