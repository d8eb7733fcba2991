"""Checkpoints of a run, written atomically and read without running code from them."""

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import Any

import torch

from midway.atomic import write_atomically
from midway.errors import MidwayError
from midway.models.encoders.base import ENCODERS, describe
from midway.models.pair_encoders.base import PAIR_ENCODER
from midway.models.weights.check import check_finite, faults
from midway.models.weights.files import checkpoints_of, step_of
from midway.models.weights.safe_pickle import read_checkpoint
from midway.train.objective import Objective
from midway.train.optim import AdamW

REMEDY = "delete it to continue from the previous one"
MAX_TRACKED = 10**6
"""Bound on the steps since the last change of a loss scale; torch's interval is 2,000."""
_PARTS = {"step": int, "skipped_steps": int, "model": dict, "optimizer": dict, "scaler": dict}


def latest_checkpoint(run_folder: Path) -> Path | None:
    """Return the newest complete checkpoint of a run, or None if there is none yet."""
    return next(reversed(checkpoints_of(run_folder)), None)


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
            sizes and prefixes of its encoders and its pair encoder.
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
    if (pair_encoder := objective.pair_encoder) is not None:
        content |= describe(objective, {PAIR_ENCODER: pair_encoder})
    path = run_folder / "checkpoints" / f"step_{step:08d}.ckpt"
    path.parent.mkdir(exist_ok=True)
    write_atomically(path, lambda file: torch.save(content, file))
    # A process that was killed while writing leaves a .tmp file.
    for old in [*checkpoints_of(run_folder)[:-keep], *path.parent.glob("*.tmp")]:
        old.unlink()
    return path


def load_checkpoint(
    path: Path, *, objective: Objective, optimizer: AdamW, scaler: torch.amp.GradScaler
) -> int:
    """Restore a run from a checkpoint.

    Returns:
        Optimiser steps completed when it was written.

    Raises:
        MidwayError: The file is damaged or contradicts itself, or is of another model.

    """
    content = _read(path)
    model = objective.renamed({str(name): each for name, each in content["model"].items()})
    if fault := faults(objective.state_dict(), model) or _other_type(objective, model):
        raise MidwayError(
            f"checkpoint is of another model: {path}: {fault}; resume with the config.json of its "
            "run"
        )
    # Buffers may be infinite, such as a best error before the first measurement, but not NaN.
    buffers = {name for name, _ in objective.named_buffers()}
    parts = {
        name: tensor.nan_to_num(torch.nan, 0, 0) if name in buffers else tensor
        for name, tensor in model.items()
    }
    check_finite(parts, where=str(path))
    try:
        optimizer.load_state_dict(content["optimizer"])
        _load_scale(scaler, content["scaler"])
    except ValueError as error:
        raise MidwayError(
            f"{path}: its optimiser does not fit this run: {error}; {REMEDY}"
        ) from None
    objective.load_state_dict(model)
    optimizer.skipped_steps.fill_(content["skipped_steps"])
    return content["step"]


def _read(path: Path) -> dict[str, Any]:
    try:
        content = read_checkpoint(path)
    except MidwayError as error:
        raise MidwayError(f"checkpoint cannot be read: {error}; {REMEDY}") from error
    wrong = [name for name, kind in _PARTS.items() if type(content.get(name)) is not kind]
    if wrong:
        raise MidwayError(f"not a checkpoint of a run: {path} has no {', '.join(wrong)}; {REMEDY}")
    step, skipped = content["step"], content["skipped_steps"]
    if step != step_of(path):
        raise MidwayError(f"{path}: contains another step than its name states; {REMEDY}")
    if not 0 <= skipped <= step:
        raise MidwayError(f"{path}: its number of skipped steps is not from 0 to {step}; {REMEDY}")
    return content


def _other_type(objective: Objective, model: Mapping[str, Any]) -> str:
    own = objective.state_dict()
    changed = [name for name in own if model[name].dtype != own[name].dtype]
    return f"{changed[0]} is of type {model[changed[0]].dtype}" if changed else ""


def _load_scale(scaler: torch.amp.GradScaler, content: Mapping[str, Any]) -> None:
    """Restore the loss scale; the content is empty unless the precision is float16."""
    if not content:
        return
    scale, tracker = content.get("scale"), content.get("_growth_tracker")
    if not isinstance(scale, float) or not isinstance(tracker, int):
        raise ValueError("its loss scale is not a number")
    if not (0 < scale < inf and 0 <= tracker <= MAX_TRACKED):
        raise ValueError(f"its loss scale {scale} is out of range")
    # The other entries are settings of this version.
    scaler.load_state_dict({**scaler.state_dict(), "scale": scale, "_growth_tracker": tracker})
