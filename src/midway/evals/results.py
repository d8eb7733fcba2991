"""Results of evaluations: provenance of the numbers, and `results.json`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from math import isfinite
from pathlib import Path
from typing import Any, Protocol

import torch

from midway.atomic import write_atomically
from midway.models.flow.network import BEST
from midway.models.weights.files import sha256_of
from midway.train.run import environment


def protocol_version(code: int, settings: Any) -> str:
    """Return a short hash of the code version and settings that determine a protocol's results.

    Args:
        code: Version of the code, increased if it computes different results from the same
            settings.
        settings: JSON values, without those that choose the machine or the network.
    """
    text = json.dumps([code, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Opened(Protocol):
    """Network with the hash of its weights, and optionally `file` and `file_sha256`."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the names and values of its tensors."""
        ...


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Provenance of the evaluated weights."""

    weights_sha256: str | None = None
    """SHA-256 of the names and values of the tensors; for a flow network, of its file."""
    checkpoint: str | None = None
    """File that they were read from; None for a network of the hub or untrained weights."""
    checkpoint_sha256: str | None = None
    """SHA-256 of that file."""


NO_WEIGHTS = Weights()
"""Provenance of a method without weights."""


def weights_of(opened: Opened) -> Weights:
    """Return the provenance of an opened network's weights."""
    return Weights(
        weights_sha256=opened.weights_sha256,
        checkpoint=getattr(opened, "file", None),
        checkpoint_sha256=getattr(opened, "file_sha256", None),
    )


def weights_of_run(run: Path) -> Weights:
    """Return the provenance of a file, or of the best or newest file of a run folder."""
    files = [run, run / BEST, *sorted(run.glob("checkpoints/*.ckpt"), reverse=True)]
    for path in files:
        if path.is_file():
            found = sha256_of(path)
            return Weights(weights_sha256=found, checkpoint=str(path), checkpoint_sha256=found)
    return NO_WEIGHTS


def complete(
    measured: Mapping[str, Any],
    *,
    protocol: str,
    version_hash: str,
    weights: Weights,
    device: torch.device,
    seconds: float | Mapping[str, float],
) -> dict[str, Any]:
    """Return measured values together with their provenance.

    The provenance is protocol, weights, software versions, hardware, command, date and duration.

    Args:
        measured: Settings and scores.
        protocol: Name of the protocol.
        version_hash: Hash from `protocol_version`.
        weights: Evaluated weights.
        device: Device of the evaluation.
        seconds: Duration, total or by phase.

    """
    software = environment(device)
    return {
        "protocol": {"name": protocol, "version": version_hash},
        **finite(measured),
        **asdict(weights),
        "midway": version("midway-network"),
        "date": software["date"],
        "environment": software,
        "seconds": seconds,
    }


def finite(value: Any) -> Any:
    """Replace numbers that are not finite by None, in nested dicts, lists and tuples.

    JSON has no NaN; a metric that covers nothing is None.
    """
    if isinstance(value, Mapping):
        return {key: finite(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [finite(each) for each in value]
    return None if isinstance(value, float) and not isfinite(value) else value


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` to a folder, atomically; the folder is created if it is missing."""
    text = json.dumps(finite(results), indent=2, allow_nan=False) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "results.json", lambda file: file.write(text.encode()))
