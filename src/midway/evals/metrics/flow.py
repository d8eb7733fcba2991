"""Endpoint errors of optical flow, accumulated pair by pair (CroCo v2's published definitions)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import nan
from typing import Self

import numpy as np
from numpy.typing import NDArray

from midway.data.flow.files import is_known
from midway.errors import MidwayError

BAD_PIXELS = (0.5, 1.0, 3.0, 5.0)
"""A pixel is bad at t if its error is above t pixels."""
SPEED_BOUNDS = (10.0, 40.0)
"""Between slow, middle and fast motion, in pixels."""
KITTI_PIXELS, KITTI_SHARE = 3.0, 0.05
"""An outlier of KITTI's F1 has an error above both, the second times the true length."""


@dataclass(frozen=True, kw_only=True)
class PairErrors:
    """Sums over the known pixels of one pair."""

    sums: Mapping[str, float]
    """Sum of what a measure adds up, by its name."""
    counts: Mapping[str, int]
    """Pixels that a measure is about, by its name."""

    @property
    def epe(self) -> float:
        """Mean endpoint error of the pair."""
        return self.sums["epe"] / self.counts["epe"]


def pair_errors(
    predicted: NDArray[np.floating],
    truth: NDArray[np.floating],
    occluded: NDArray[np.bool_] | None = None,
) -> PairErrors:
    """Errors of predicted flow at every pixel whose true flow is known, however long it is.

    Args:
        predicted: Shape (height, width, 2), in pixels.
        truth: Likewise; not finite where it is not known.
        occluded: Where the target does not show the source's pixel (height, width), if told.

    Raises:
        MidwayError: The sizes differ, nothing is known, or the prediction is not finite.
    """
    if predicted.shape != truth.shape:
        raise MidwayError(
            f"flow of shape {predicted.shape} was predicted, the truth has {truth.shape}; "
            "predict one vector a pixel"
        )
    known = is_known(truth)
    if not known.any():
        raise MidwayError("no pixel of the true flow is known; leave the pair out")
    if not np.isfinite(predicted[known]).all():
        raise MidwayError("predicted flow is not finite; check the network's weights")
    truth = truth[known].astype(np.float64)
    differences = predicted[known] - truth
    error = np.hypot(differences[:, 0], differences[:, 1])
    length = np.hypot(truth[:, 0], truth[:, 1])
    slow, fast = SPEED_BOUNDS
    everywhere = np.ones(len(error), bool)
    measures = {
        "epe": (error, everywhere),
        "l1": (np.abs(differences).sum(1), everywhere),
        **{f"bad_{t:g}": (100.0 * (error > t), everywhere) for t in BAD_PIXELS},
        "f1": (
            100.0 * ((error > KITTI_PIXELS) & (error > KITTI_SHARE * length)),
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


@dataclass(frozen=True, kw_only=True)
class FlowScore:
    """How well the flow of a set of pairs is predicted."""

    num_pairs: int
    epe: float
    """Mean over the pairs of the mean endpoint error of each, in pixels."""
    by_pixels: Mapping[str, float]
    """Over all known pixels of the set at once: `epe_pixels`, `l1` in pixels, `bad_0.5` to `bad_5`
    and `f1` in percent, `epe_0_10`, `epe_10_40` and `epe_40` of pixels that move so far, and
    `epe_visible` and `epe_occluded` where the set tells; NaN where there is no such pixel."""

    @classmethod
    def of(cls, pairs: Sequence[PairErrors]) -> Self:
        """Score of some pairs together.

        Raises:
            MidwayError: There are none.
        """
        if not pairs:
            raise MidwayError("flow score of no pairs; check the split")
        means = {}
        for name in dict.fromkeys(name for pair in pairs for name in pair.sums):
            count = sum(pair.counts.get(name, 0) for pair in pairs)
            total = sum(pair.sums.get(name, 0.0) for pair in pairs)
            means["epe_pixels" if name == "epe" else name] = total / count if count else nan
        epe = sum(pair.epe for pair in pairs) / len(pairs)
        return cls(num_pairs=len(pairs), epe=epe, by_pixels=means)


@dataclass(kw_only=True)
class Scores:
    """Errors of the pairs seen so far, and of which sequence and rendering each is."""

    pairs: list[PairErrors] = field(default_factory=list)
    sequences: list[str] = field(default_factory=list)
    renderings: list[str] = field(default_factory=list)

    def add(self, errors: PairErrors, *, sequence: str = "", rendering: str = "") -> None:
        """Count a pair."""
        self.pairs.append(errors)
        self.sequences.append(sequence)
        self.renderings.append(rendering)

    def total(self) -> FlowScore:
        """Score of all pairs."""
        return FlowScore.of(self.pairs)

    def epe_by_sequence(self) -> dict[str, float]:
        """Mean over the pairs of each sequence, as `FlowScore.epe`; empty if none is named."""
        return self._epe_by(self.sequences)

    def epe_by_rendering(self) -> dict[str, float]:
        """Mean over the pairs of each rendering, likewise."""
        return self._epe_by(self.renderings)

    def _epe_by(self, names: Sequence[str]) -> dict[str, float]:
        groups: dict[str, list[PairErrors]] = {name: [] for name in names if name}
        for name, pair in zip(names, self.pairs, strict=True):
            if name:
                groups[name].append(pair)
        return {name: FlowScore.of(pairs).epe for name, pairs in groups.items()}
