"""Configuration of a run, and its folder with configuration and environment."""

import platform
import random
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from math import inf
from pathlib import Path
from typing import Any, Literal

import torch

from midway.atomic import write_text
from midway.config import check_at_most, json_text, read_config
from midway.errors import MidwayError
from midway.train.lock import LOCK_NAME

AUTOCAST_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Autocast type of a forward pass, by precision; other precisions have no autocast."""
CHANGEABLE = frozenset(
    {
        "run.folder",
        "run.steps",
        "run.epochs",
        "run.log_every",
        "run.health_every",
        "run.checkpoint_every",
        "run.keep_checkpoints",
        "run.devices",
        "run.num_nodes",
        "run.accelerator",
        "run.compile",
        "run.recompute",
        "labels.dataset",
        "labels.root",
        "labels.classes",
        "labels.images",
        "labels.memory_size",
        "labels.scale",
        "data.root",
        "data.classes",
        "data.num_workers",
        "data.read_timeout_seconds",
        "data.max_bad_share",
    }
)
"""Fields that a resumed run may change, because they do not affect the training of a sample."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Folder, length and hardware of a run."""

    folder: Path
    """Folder for all files of the run."""
    seed: int = 0
    epochs: float = 300.0
    """Length in passes over the data, unless `steps` is given."""
    steps: int = 0
    """Length in optimiser steps; if 0, `epochs` determines it."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int = 1
    """Processes per node, with one device each; torchrun and SLURM override it."""
    num_nodes: int = 1
    """Number of machines; torchrun and SLURM override it."""
    compile: bool = False
    """Compile the blocks with torch, which takes minutes at the start; for GPUs."""
    recompute: bool = False
    """Recompute the blocks in the backward pass: a third more work, but less memory."""
    accumulate: int = 1
    """Micro-batches per optimiser step, on each rank."""
    log_every: int = 10
    """Optimiser steps between two records of the log."""
    health_every: int = 500
    """Optimiser steps between two measurements of health metrics; 0 for none."""
    checkpoint_every: int = 1000
    """Optimiser steps between two checkpoints; one is always written at the end."""
    keep_checkpoints: int = 2
    """Number of newest checkpoints to keep."""

    def __post_init__(self) -> None:
        counts = (
            "devices",
            "num_nodes",
            "accumulate",
            "log_every",
            "checkpoint_every",
            "keep_checkpoints",
        )
        for name in counts:
            if getattr(self, name) < 1:
                raise MidwayError(
                    f"bad run setting: run.{name} = {getattr(self, name)}; give 1 or more"
                )
        # A config.json from elsewhere must not ask for any number of processes.
        check_at_most("run", self, devices=1024, num_nodes=2**16, accumulate=2**20, steps=2**53)
        if self.health_every < 0:
            raise MidwayError(f"run.health_every = {self.health_every}; give 0 (never) or more")
        if not 0 <= self.seed < 2**63:
            raise MidwayError(f"run.seed = {self.seed}; give a number from 0 to 2**63 - 1")
        if self.steps < 0 or (self.steps == 0 and not 0 < self.epochs < inf):
            raise MidwayError(
                "run.epochs and run.steps: neither gives the run a length; set one above 0"
            )

    def length(self, steps_per_epoch: float) -> int:
        """Return the length in optimiser steps, at least 1."""
        return self.steps or max(1, round(self.epochs * steps_per_epoch))


def autocast(device: torch.device, run: RunConfig) -> torch.autocast:
    """Return the autocast context of a forward pass."""
    # Fabric's precision would also round the batch, and with it the ground truth of a readout: in
    # bfloat16 a flow of 300 pixels has an error of up to one pixel.
    dtype = AUTOCAST_TYPES.get(run.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def step_seed(seed: int, rank: int, step: int) -> int:
    """Return the seed of torch's global generator for one step on one rank."""
    return random.Random(f"{seed} {rank} {step}").getrandbits(63)


def check_run_folder(folder: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Check that a folder is free for a new run, or contains one that `config` can resume.

    Raises:
        MidwayError: The folder contains other files, there is no run to resume, or the run was
            started with another value of a field that is not `CHANGEABLE`.

    """
    if resume:
        if not (folder / "config.json").is_file():
            raise MidwayError(f"no run to resume: {folder}; give the folder of an earlier run")
        _check_changes(folder / "config.json", config)
        return
    # A run that stopped before its first step leaves only these.
    leftovers = {"skipped.jsonl", "classes.json", LOCK_NAME}
    if folder.exists() and not folder.is_dir():
        raise MidwayError(f"{folder}: is a file; choose another --run.folder")
    if folder.is_dir() and {path.name for path in folder.iterdir()} - leftovers:
        raise MidwayError(
            f"run folder is not empty: {folder}; choose another --run.folder, "
            f"or continue that run by --resume {folder}"
        )


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json``; creates the folder, or replaces the file of a resumed run."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config)


def write_environment(folder: Path, device: torch.device, *, start_step: int) -> None:
    """Write ``environment.json``: versions, hardware, source, command and date.

    A resumed run keeps that file and adds one for its start step: ``environment_00000200.json``.
    """
    suffix = f"_{start_step:08d}" if start_step else ""
    _write_json(folder / f"environment{suffix}.json", environment(device))


def environment(device: torch.device) -> dict[str, Any]:
    """Return versions, hardware, source, command and date, as JSON values."""
    is_cuda = device.type == "cuda"
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(sys.argv),
        "python": platform.python_version(),
        "torch": torch.__version__,
        **{name: version(name) for name in ("midway-network", "lightning-fabric", "av")},
        "device": torch.cuda.get_device_name(device) if is_cuda else device.type,
        "cuda": torch.version.cuda if is_cuda else None,
        "platform": platform.platform(),
        "git_commit": _git_commit(),
    }


def _check_changes(path: Path, config: Mapping[str, Any]) -> None:
    # Compared field by field, so that the error can name the first that differs.
    old, new = _flat(read_config(path)), _flat(config)
    # A field that an older version did not have cannot be compared.
    for name in sorted(old.keys() - CHANGEABLE):
        if name not in new or new[name] != old[name]:
            raise MidwayError(
                f"cannot change a run that is resumed: {name} is {old[name]!r} in {path}, not "
                f"{new.get(name)!r}; leave it, or start a new run"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        # An empty mapping has no fields, but is a value itself.
        inner = value if isinstance(value, Mapping) else {}
        flat |= _flat(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    write_text(path, json_text(value, indent=2) + "\n")


def _git_commit() -> str | None:
    """Return the commit of this source, with -dirty if changed; None outside its repository."""
    if not (git := shutil.which("git")):
        return None
    # The package may be installed inside the repository of another project.
    here = [git, "-C", str(Path(__file__).parent)]
    is_tracked = [*here, "ls-files", "--error-unmatch", Path(__file__).name]
    if subprocess.run(is_tracked, capture_output=True).returncode != 0:
        return None
    describe = [*here, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    return subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None
