"""One training from launch to end, as experiments and readouts do it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from lightning_fabric import Fabric

from midway.config import to_json
from midway.train.fit import FitSummary, fit
from midway.train.health import Probe
from midway.train.launch import launch, on_first_rank
from midway.train.objective import Loader, Objective
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig, check_run_folder


class TrainingConfig(Protocol):
    """Configuration of a training: a dataclass; all of it is written to ``config.json``."""

    @property
    def optim(self) -> OptimConfig:
        """Optimiser and schedules."""
        ...

    @property
    def run(self) -> RunConfig:
        """Folder, length and hardware."""
        ...


@dataclass(frozen=True, kw_only=True)
class Trained:
    """Parts of a training that are built in each process after its launch."""

    objective: Objective
    loader: Loader
    flops_per_sample: float | None = None
    """Arithmetic of one sample, forward and backward."""
    probe: Probe | None = None
    """Measured with the health of the run."""


def launch_and_fit(
    config: TrainingConfig, build: Callable[[Fabric], Trained], *, resume: bool = False
) -> tuple[FitSummary, Fabric]:
    """Launch the processes of a run, check its folder, build what is trained and train it.

    Args:
        config: Configuration of the run.
        build: Called in each process, with torch's generator seeded by the run's seed.
        resume: Continue the run in its folder.

    Returns:
        Summary of the training, and the processes, which may go on to evaluate.

    Raises:
        MidwayError: The folder is not empty, or has no run that `config` can resume; or the
            training fails, see `fit`.

    """
    run, values = config.run, to_json(config)
    fabric = launch(run)
    on_first_rank(fabric, partial(check_run_folder, run.folder, values, resume=resume))
    torch.manual_seed(run.seed)
    parts = build(fabric)
    summary = fit(
        parts.objective,
        parts.loader,
        fabric=fabric,
        optim=config.optim,
        run=run,
        config=values,
        resume=resume,
        flops_per_sample=parts.flops_per_sample,
        probe=parts.probe,
    )
    return summary, fabric
