"""One training from launch to end, for experiments and readouts alike."""

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning_fabric import Fabric

from midway.config import to_json
from midway.train.fit import FitSummary, fit
from midway.train.health import Probe
from midway.train.launch import launch, lost_ranks_named, on_first_rank
from midway.train.lock import LOCK_NAME, locked
from midway.train.objective import Loader, Objective
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig, check_run_folder


class TrainingConfig(Protocol):
    """Configuration of a training run: a dataclass, written to ``config.json`` as a whole."""

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
    """Parts of a training run that each process builds after its launch."""

    objective: Objective
    loader: Loader
    flops_per_sample: float | None = None
    """Floating-point operations of one sample, forward and backward."""
    probe: Probe | None = None
    """Measured together with the health metrics of the run."""


def launch_and_fit(
    config: TrainingConfig, build: Callable[[Fabric], Trained], *, resume: bool = False
) -> tuple[FitSummary, Fabric]:
    """Launch the processes of a run, check its folder, build the objective and train it.

    Args:
        config: Configuration of the run.
        build: Called in each process, with torch's generator seeded by the run's seed.
        resume: Continue the run in its folder.

    Returns:
        Summary of the training, and Fabric's handle on the processes, for an evaluation.

    Raises:
        MidwayError: The folder is not empty, contains no run that `config` can resume, or belongs
            to a run that another process is writing; or the training fails, see `fit`.

    """
    run, values = config.run, to_json(config)
    with lost_ranks_named(run.folder), ExitStack() as stack:
        fabric = launch(run)
        # One rank checks, because it also creates the folder: a later check elsewhere would fail.
        on_first_rank(fabric, partial(_claim, stack, run.folder, values, resume=resume))
        # Fresh weights depend on the seed only, and are the same on every rank.
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


def _claim(stack: ExitStack, folder: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Check the folder of a run, and lock it until the stack is closed."""
    if not (folder / LOCK_NAME).exists():
        # Before the lock creates a file in what may be any folder.
        check_run_folder(folder, config, resume=resume)
    stack.enter_context(locked(folder))
    check_run_folder(folder, config, resume=resume)
