"""Whether a run is well, which the loss of a joint-embedding method does not tell.

The loss falls when the network learns, and also when all its features become alike. Every some
steps the objective measures what tells the two apart; it costs a forward pass and one look at the
device, and nothing of it reaches what is trained.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from midway.nn.eval_mode import evaluating
from midway.train.objective import Objective
from midway.train.run import RunConfig, autocast

Probe = Callable[[], Mapping[str, float]]
"""Measures what an objective cannot, from data of its own: scalars by name.

It is called on the first rank alone, so that it must ask nothing of the others, which wait for it.
"""
PREFIX = "health/"
"""Of the names of what is measured, in the log."""
MAX_SAMPLES = 4096
"""Features whose effective rank is taken, for the sake of time."""
LOW_RANK, LOW_SPREAD = 3.0, 0.01
"""Below either, features have collapsed. Fresh networks of width 96 and 384 have ranks of 58 and
127 and more and spreads of 0.8 and more; features that differ by noise of a tenth of what they
share have a spread of 0.007."""
_log = logging.getLogger(__name__)


def effective_rank(features: Float[Tensor, "samples dim"]) -> Float[Tensor, ""]:
    """How many directions features use: RankMe (Garrido et al., 2023, eq. 1).

    The exponential of the entropy of the singular values, each as a share of their sum: 1 if all
    features lie on a line, at most `dim`; NaN if one is not finite. Of many samples, evenly chosen
    ones are taken.
    """
    step = -(-len(features) // MAX_SAMPLES)
    with torch.autocast(features.device.type, enabled=False):
        chosen = features[::step].float()
        # What is not finite would be an error here; steps of that kind are the loop's to judge.
        values = torch.linalg.svdvals(chosen.nan_to_num())
        shares = values / values.sum().clamp(min=1e-12)
        rank = torch.special.entr(shares).sum().exp()
        return torch.where(chosen.isfinite().all(), rank, torch.nan)


def spread(features: Float[Tensor, "samples dim"]) -> Float[Tensor, ""]:
    """How much the directions of features differ: 0 if all are one, 1 if they cancel out.

    It is one less the mean cosine of two of them, a sample with itself included.
    """
    with torch.autocast(features.device.type, enabled=False):
        return 1 - F.normalize(features.float(), dim=1).mean(0).square().sum()


@dataclass(frozen=True, kw_only=True)
class Health:
    """Measures an objective every some steps, and warns of each sign of collapse once."""

    run: RunConfig
    probe: Probe | None = None
    warned: set[str] = field(default_factory=set)
    """Names of measures that have been warned of."""

    def measure(self, objective: Objective, batch: Any, step: int) -> dict[str, Tensor]:
        """Scalars of the objective on a batch, by their names in the log; none between times.

        Args:
            objective: Each of its parts has its own mode back afterwards.
            batch: The last one of the step, on its device.
            step: Steps completed.

        """
        if not self._is_due(step):
            return {}
        device = next(objective.parameters()).device
        with evaluating(objective), autocast(device, self.run):
            found = objective.health(batch)
        return {f"{PREFIX}{name}": value.detach() for name, value in found.items()}

    def is_probed(self, step: int) -> bool:
        """Whether `probed` has something to say after a step, on every rank alike.

        It has after the first as well, for what features are worth before they have learnt.
        """
        is_first = step == 1 and self.run.health_every > 0
        return self.probe is not None and (is_first or self._is_due(step))

    def probed(self, step: int) -> dict[str, float]:
        """What the probe finds, by the names in the log; nothing between times."""
        if self.probe is None or not self.is_probed(step):
            return {}
        return {f"{PREFIX}{name}": value for name, value in self.probe().items()}

    def _is_due(self, step: int) -> bool:
        every = self.run.health_every
        return every > 0 and step % every == 0

    def warn(self, values: Mapping[str, float], step: int) -> None:
        """Say which features have collapsed.

        Args:
            values: Of a record of the log; those called ``rank_LEVEL`` and ``spread_LEVEL`` count.
            step: Steps completed.

        """
        for kind, least in (("rank", LOW_RANK), ("spread", LOW_SPREAD)):
            for name, value in values.items():
                is_kind = name.startswith(f"{PREFIX}{kind}_")
                if is_kind and value < least and name not in self.warned:
                    self.warned.add(name)
                    _log.warning(
                        "step %d: features of level %s have collapsed (%s %.3g, below %g): a low "
                        "loss now means nothing; see %s/metrics.jsonl and start anew, with a lower "
                        "--optim.lr or a teacher that follows more slowly",
                        step,
                        name.rpartition("_")[2],
                        "effective rank" if kind == "rank" else kind,
                        value,
                        least,
                        self.run.folder,
                    )
