"""Health metrics of a run, and warnings of collapsed features.

The loss of a joint-embedding method falls when the network learns, but also when its features
collapse. The metrics distinguish the two. They cost one forward pass every `run.health_every` steps
and do not affect training.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import inf, isnan
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.nn.eval_mode import evaluating
from midway.train.objective import Objective
from midway.train.run import RunConfig, autocast

Probe = Callable[[], Mapping[str, float]]
"""Measures scalars by name from a dataset that the objective does not have.

It is called on the first rank only, while the others wait: it must not run collective operations.
"""
PREFIX = "health/"
"""Prefix of health metrics in the log."""
MAX_SAMPLES = 4096
"""Largest number of features for an effective rank: its SVD is slow for more."""
LOW_RANK, LOW_SPREAD = 3.0, 0.01
"""Thresholds below which features count as collapsed. Untrained networks of width 96 and 384 have
ranks of at least 58 and 127, and spreads of at least 0.8. Features that share a vector and differ
by noise of a tenth of its length have a spread of 0.007."""
HIGH_ENTROPY = 0.999
"""Threshold above which the mean entropy of DINO's targets, as a fraction of its largest value,
counts as that of uniform targets."""
RHO_MARGIN = 0.75
"""Fraction of the needed correlation of crops below which a run warns: over 16 pairs of CamVid, on
which DINO learns, it is 0.38 to 0.52 for four seeds, where 0.4 is needed."""
_log = logging.getLogger(__name__)


def effective_rank(features: Float[Tensor, "samples dim"]) -> Float[Tensor, ""]:
    """Return the effective rank of features: RankMe (Garrido et al., 2023, eq. 1).

    It is the exponential of the entropy of the normalised singular values: 1 if all features lie on
    a line through the origin, at most `dim`, NaN if a feature is not finite. More than
    `MAX_SAMPLES` features are subsampled evenly.
    """
    step = -(-len(features) // MAX_SAMPLES)
    # torch has no singular value decomposition in half precision.
    with torch.autocast(features.device.type, enabled=False):
        chosen = features[::step].float()
        # svdvals raises for input that is not finite, but the loop decides about such steps.
        values = torch.linalg.svdvals(chosen.nan_to_num())  # (min(samples, dim),)
        shares = values / values.sum().clamp(min=1e-12)
        rank = torch.special.entr(shares).sum().exp()
        return torch.where(chosen.isfinite().all(), rank, torch.nan)


def spread(features: Float[Tensor, "samples dim"]) -> Float[Tensor, ""]:
    """Return 1 - mean pairwise cosine similarity (self-pairs included).

    It is 0 if all features have one direction, and 1 if their unit vectors sum to 0.
    """
    with torch.autocast(features.device.type, enabled=False):
        # The mean of all pairwise products is the squared length of the mean unit vector.
        return 1 - F.normalize(features.float(), dim=1).mean(0).square().sum()


def feature_health(features: Float[Tensor, "samples dim"], level: int) -> dict[str, Tensor]:
    """Return effective rank and spread of features by their names in the log."""
    return {f"rank_{level}": effective_rank(features), f"spread_{level}": spread(features)}


@dataclass(frozen=True, kw_only=True)
class Health:
    """Measures an objective at intervals, and warns of each collapsed feature once."""

    run: RunConfig
    probe: Probe | None = None
    warned: set[str] = field(default_factory=set)
    """Names of metrics for which a warning was logged."""

    def measure(self, objective: Objective, batch: Any, step: int) -> dict[str, Tensor]:
        """Return the health metrics of a batch by their names in the log; empty unless due.

        Args:
            objective: Evaluated without gradients; the mode of each part is restored.
            batch: Last micro-batch of the step, on its device.
            step: Steps completed.

        """
        is_first, is_due = step == 1 and self.run.health_every > 0, self._is_due(step)
        if not (is_first or is_due):
            return {}
        device = next(objective.parameters()).device
        with evaluating(objective), autocast(device, self.run):
            found = objective.health(batch) if is_due else {}
            found |= objective.starting_health(batch) if is_first else {}
        return {f"{PREFIX}{name}": value.detach() for name, value in found.items()}

    def draw(self, objective: Objective, batch: Any, step: int) -> dict[str, NDArray[np.uint8]]:
        """Return pictures of a batch by their names in TensorBoard; empty unless due.

        Args:
            objective: Evaluated without gradients; the mode of each part is restored.
            batch: Last micro-batch of the step, on its device.
            step: Steps completed.

        """
        if not self._is_due(step):
            return {}
        device = next(objective.parameters()).device
        with evaluating(objective), autocast(device, self.run):
            found = objective.pictures(batch)
        return {f"{PREFIX}{name}": picture for name, picture in found.items()}

    def is_probed(self, step: int) -> bool:
        """Return whether `probed` measures after this step; the same on every rank.

        It also measures after the first step, as a reference for untrained features.
        """
        is_first = step == 1 and self.run.health_every > 0
        return self.probe is not None and (is_first or self._is_due(step))

    def probed(self, step: int) -> dict[str, float]:
        """Return the scalars of the probe by their names in the log; empty unless due."""
        if self.probe is None or not self.is_probed(step):
            return {}
        return {f"{PREFIX}{name}": value for name, value in self.probe().items()}

    def _is_due(self, step: int) -> bool:
        every = self.run.health_every
        return every > 0 and step % every == 0

    def warn(self, values: Mapping[str, float], step: int) -> None:
        """Log a warning of collapsed features or an unmet condition, once for each.

        Args:
            values: Record of the log; ``rank_LEVEL``, ``spread_LEVEL``, ``spread_head``,
                ``dino_entropy`` and, where it is recorded, ``dino_rho_needed`` are checked.
            step: Steps completed.

        """
        own = {n.removeprefix(PREFIX): v for n, v in values.items() if n.startswith(PREFIX)}
        for name, value in own.items():
            if (fault := _collapse(name, value)) and name not in self.warned:
                self.warned.add(name)
                _log.warning(
                    "step %d: %s; see %s/metrics.jsonl and start again with a lower --optim.lr or "
                    "a higher teacher momentum",
                    *(step, fault, self.run.folder),
                )
        needed = own.get("dino_rho_needed", -inf)
        if own.get("dino_rho", inf) < RHO_MARGIN * needed:
            _log.warning(
                "step %d: two crops of one place correlate by %.2f in the DINO head, below %.2f "
                "(teacher over student temperature): the DINO loss may stay at log(prototypes); "
                "start again with a lower --method.targets.teacher-temperature, or with "
                "--method.views.no-distort-colours",
                *(step, own["dino_rho"], needed),
            )


def _collapse(name: str, value: float) -> str:
    """Return a description of the collapse that a metric shows; empty if none."""
    kind, _, level = name.rpartition("_")
    if name == "dino_entropy" and value > HIGH_ENTROPY:
        return (
            f"targets of the DINO loss are uniform (entropy {value:.4f} of its largest value, "
            f"above {HIGH_ENTROPY:g}): nothing is learnt from them"
        )
    least = {"rank": LOW_RANK, "spread": LOW_SPREAD}.get(kind, -inf)
    if value >= least or isnan(value):
        return ""
    what = "outputs of the DINO head" if level == "head" else f"features of level {level}"
    measure = "effective rank" if kind == "rank" else kind
    return (
        f"{what} have collapsed ({measure} {value:.3g}, below {least:g}): a low loss now means "
        "nothing"
    )
