"""Checkpoints of a run: written whole or not at all, read without running any code."""

from pathlib import Path
from typing import Any

import torch

from midway.atomic import write_atomically
from midway.errors import MidwayError
from midway.models.encoders.base import ENCODERS, describe
from midway.models.weights.safe_pickle import read_checkpoint
from midway.train.objective import Objective
from midway.train.optim import AdamW

_PARTS = {"step": int, "skipped_steps": int, "model": dict, "optimizer": dict, "scaler": dict}


def latest_checkpoint(run_folder: Path) -> Path | None:
    """The newest complete checkpoint of a run, or None if it has none yet."""
    return max(_checkpoints(run_folder), default=None)


def save_checkpoint(
    run_folder: Path,
    *,
    step: int,
    objective: Objective,
    optimizer: AdamW,
    scaler: torch.amp.GradScaler,
    keep: int,
) -> Path:
    """Write ``checkpoints/step_00000200.ckpt``, then remove all but the newest `keep`.

    Args:
        run_folder: The run that it belongs to.
        step: Optimiser steps completed.
        objective: All its parameters and buffers are saved, trainable or not, and the kind, sizes
            and place of its encoders.
        optimizer: With its moments, and the count of the steps left out.
        scaler: With its loss scale, if the precision has one.
        keep: Checkpoints that stay, this one included.

    """
    content = {
        "step": step,
        "skipped_steps": int(optimizer.skipped_steps),
        "model": objective.state_dict(),
        "optimizer": optimizer.state_dict(),
        "scaler": scaler.state_dict(),
        ENCODERS: describe(objective, objective.encoders),
    }
    path = run_folder / "checkpoints" / f"step_{step:08d}.ckpt"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, lambda file: torch.save(content, file))
    for old in [*_checkpoints(run_folder)[:-keep], *path.parent.glob("*.tmp")]:
        old.unlink()
    return path


def load_checkpoint(
    path: Path, *, objective: Objective, optimizer: AdamW, scaler: torch.amp.GradScaler
) -> int:
    """Put a run back to where a checkpoint was written.

    Returns:
        Optimiser steps completed by then.

    Raises:
        MidwayError: If the file is damaged, or of another model.

    """
    content = _read(path)
    try:
        objective.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise MidwayError(
            f"checkpoint is of another model: {path}; resume with the config.json of its run"
        ) from error
    if content["scaler"]:
        scaler.load_state_dict(content["scaler"])
    optimizer.skipped_steps.fill_(content["skipped_steps"])
    return content["step"]


def _checkpoints(run_folder: Path) -> list[Path]:
    return sorted((run_folder / "checkpoints").glob("step_*.ckpt"))


def _read(path: Path) -> dict[str, Any]:
    remedy = "delete it to go on from the one before"
    try:
        content = read_checkpoint(path)
    except MidwayError as error:
        raise MidwayError(f"checkpoint cannot be read: {error}; {remedy}") from error
    wrong = [name for name, kind in _PARTS.items() if not isinstance(content.get(name), kind)]
    if wrong:
        raise MidwayError(f"checkpoint of no run: {path} has no {', '.join(wrong)}; {remedy}")
    return content
