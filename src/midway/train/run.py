"""One run: how long, on what, and the folder that tells what was done."""

import json
import platform
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

from midway.atomic import write_atomically
from midway.config import read_config
from midway.errors import MidwayError

AUTOCAST_TYPES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Type of the matrix products of a forward pass, by precision; the others compute in float32."""
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
        "labels.images",
        "labels.memory_size",
        "labels.scale",
        "data.root",
        "data.num_workers",
        "data.read_timeout_seconds",
        "data.max_bad_share",
    }
)
"""Fields that a resumed run may change: they leave what is learnt from a sample as it was."""


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    """Where a run is kept, how long it lasts and what it runs on."""

    folder: Path
    """Everything about the run is written here."""
    seed: int = 0
    epochs: float = 300.0
    """Passes over the data; decides the length unless `steps` does."""
    steps: int = 0
    """Length in optimiser steps; 0 leaves it to `epochs`."""
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = "bf16-mixed"
    accelerator: Literal["auto", "cpu", "gpu", "mps"] = "auto"
    devices: int = 1
    """Processes on each node, one device each; torchrun and SLURM set it by themselves."""
    num_nodes: int = 1
    """Machines; torchrun and SLURM set it by themselves."""
    compile: bool = False
    """Whether torch compiles the blocks, which takes minutes at the start; for GPUs."""
    recompute: bool = False
    """Whether backward computes the blocks anew: a third more work, and less memory."""
    accumulate: int = 1
    """Batches of the loader in one optimiser step, on each rank."""
    log_every: int = 10
    """Optimiser steps between two lines of the log."""
    health_every: int = 500
    """Optimiser steps between two looks at whether features collapse; 0 for none."""
    checkpoint_every: int = 1000
    """Optimiser steps between two checkpoints; there is always one at the end."""
    keep_checkpoints: int = 2
    """Newest checkpoints that stay."""

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
                raise MidwayError(f"bad run setting: run.{name}; it must be at least 1")
        if self.health_every < 0:
            raise MidwayError(f"run.health_every = {self.health_every}; give 0 for none, or more")
        if not 0 <= self.seed < 2**63:
            raise MidwayError(f"run.seed = {self.seed}; give a number from 0 to 2**63 - 1")
        if self.steps < 0 or (self.steps == 0 and not 0 < self.epochs < inf):
            raise MidwayError("run of no length: run.epochs and run.steps; give one above 0")

    def length(self, steps_per_epoch: float) -> int:
        """Optimiser steps from beginning to end, at least one."""
        return self.steps or max(1, round(self.epochs * steps_per_epoch))


def autocast(device: torch.device, run: RunConfig) -> torch.autocast:
    """Return the context of a forward pass.

    Fabric's own would round the batch too, and with it the ground truth of a readout: in bfloat16
    a flow of 300 pixels is off by up to one.
    """
    dtype = AUTOCAST_TYPES.get(run.precision)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not None)


def check_run_folder(folder: Path, config: Mapping[str, Any], *, resume: bool) -> None:
    """Make sure that a folder can take a new run, or has one that `config` can resume.

    A list of skipped clips alone is no run: it is left by one that stopped before it began.

    Raises:
        MidwayError: A new run would mix with files of another, there is none to resume, or it was
            begun with another value of a field that is not `CHANGEABLE`.

    """
    if resume:
        if not (folder / "config.json").is_file():
            raise MidwayError(f"no run to resume: {folder}; give the folder of an earlier run")
        _check_changes(folder / "config.json", config)
        return
    is_taken = folder.is_dir() and {path.name for path in folder.iterdir()} - {"skipped.jsonl"}
    if is_taken or (folder.exists() and not folder.is_dir()):
        raise MidwayError(
            f"run folder is not empty: {folder}; choose another --run.folder, "
            f"or go on with that run by --resume {folder}"
        )


def write_config(folder: Path, config: Mapping[str, Any]) -> None:
    """Write ``config.json``, in a new folder or over that of the run that goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    _write_json(folder / "config.json", config)


def write_environment(folder: Path, device: torch.device, *, start_step: int) -> None:
    """Write ``environment.json``: versions, hardware, source, command and date.

    A resumed run keeps the first and adds ``environment_00000200.json`` for its start step.
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
    old, new = _flat(read_config(path)), _flat(config)
    # What a file of an older version does not name has its default.
    for name in sorted(old.keys() - CHANGEABLE):
        if name not in new or new[name] != old[name]:
            raise MidwayError(
                f"cannot change a run that is resumed: {name} is {old[name]!r} in {path}, not "
                f"{new.get(name)!r}; leave it, or start a new run"
            )


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in values.items():
        inner = value if isinstance(value, Mapping) else {}
        flat |= _flat(inner, f"{prefix}{name}.") if inner else {f"{prefix}{name}": value}
    return flat


def _write_json(path: Path, value: Mapping[str, Any]) -> None:
    text = json.dumps(value, indent=2) + "\n"
    write_atomically(path, lambda file: file.write(text.encode()))


def _git_commit() -> str | None:
    """Commit of this source, marked if there are changes; None outside a checkout of it."""
    if not (git := shutil.which("git")):
        return None
    here = [git, "-C", str(Path(__file__).parent)]
    is_tracked = [*here, "ls-files", "--error-unmatch", Path(__file__).name]
    if subprocess.run(is_tracked, capture_output=True).returncode != 0:
        return None
    describe = [*here, "describe", "--always", "--abbrev=40", "--exclude=*", "--dirty"]
    return subprocess.run(describe, capture_output=True, text=True).stdout.strip() or None
