"""Checkpoints of a run, written atomically and read without running code from them."""

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
    """Return the newest complete checkpoint of a run, or None if there is none yet."""
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
        run_folder: Folder of the run.
        step: Optimiser steps completed.
        objective: Saved with all parameters and buffers, trainable or not, and with the kind,
            sizes and prefixes of its encoders.
        optimizer: Saved with its moments and the number of skipped steps.
        scaler: Saved with its loss scale, if the precision has one.
        keep: Number of checkpoints to keep, this one included.

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
    # A process that was killed while writing leaves a .tmp file.
    for old in [*_checkpoints(run_folder)[:-keep], *path.parent.glob("*.tmp")]:
        old.unlink()
    return path


def load_checkpoint(
    path: Path, *, objective: Objective, optimizer: AdamW, scaler: torch.amp.GradScaler
) -> int:
    """Restore a run from a checkpoint.

    Returns:
        Optimiser steps completed when it was written.

    Raises:
        MidwayError: The file is damaged, or of another model.

    """
    content = _read(path)
    # torch and AdamW raise various errors for state dicts that do not fit.
    try:
        objective.load_state_dict(content["model"])
        optimizer.load_state_dict(content["optimizer"])
    except (RuntimeError, ValueError, TypeError, KeyError) as error:
        raise MidwayError(
            f"checkpoint is of another model: {path}; resume with the config.json of its run"
        ) from error
    # Empty unless the precision is float16.
    if content["scaler"]:
        scaler.load_state_dict(content["scaler"])
    optimizer.skipped_steps.fill_(content["skipped_steps"])
    return content["step"]


def _checkpoints(run_folder: Path) -> list[Path]:
    return sorted((run_folder / "checkpoints").glob("step_*.ckpt"))


def _read(path: Path) -> dict[str, Any]:
    remedy = "delete it to continue from the previous one"
    try:
        content = read_checkpoint(path)
    except MidwayError as error:
        raise MidwayError(f"checkpoint cannot be read: {error}; {remedy}") from error
    wrong = [name for name, kind in _PARTS.items() if not isinstance(content.get(name), kind)]
    if wrong:
        raise MidwayError(f"not a checkpoint of a run: {path} has no {', '.join(wrong)}; {remedy}")
    return content
