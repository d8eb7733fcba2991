"""Results of an evaluation: `results.json`, with protocol, network and software."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import torch

from midway.atomic import write_atomically
from midway.models.flow.network import BEST
from midway.models.weights.files import sha256_of
from midway.train.run import environment


def protocol_version(code: int, settings: Any) -> str:
    """Short hash of what decides the numbers of a protocol.

    Args:
        code: Raised when the code makes something else of the same settings.
        settings: Plain values of JSON, without what says where it runs and on which network.
    """
    text = json.dumps([code, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Opened(Protocol):
    """A network and the hash of its weights; maybe `file` and `file_sha256` of its checkpoint."""

    @property
    def weights_sha256(self) -> str:
        """Hash of names and values of its tensors."""
        ...


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights that were evaluated."""

    weights_sha256: str | None = None
    """Hash of names and values of the tensors; of a flow network, of its file."""
    checkpoint: str | None = None
    """File that they were read from; None for a network of the hub or fresh weights."""
    checkpoint_sha256: str | None = None


NO_WEIGHTS = Weights()


def weights_of(opened: Opened) -> Weights:
    """Return the record of an opened network."""
    return Weights(
        weights_sha256=opened.weights_sha256,
        checkpoint=getattr(opened, "file", None),
        checkpoint_sha256=getattr(opened, "file_sha256", None),
    )


def weights_of_run(run: Path) -> Weights:
    """Return the record of a file, or of the best or newest file of a run folder."""
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
    """Add protocol, weights, software, hardware, date, command and time to measured values.

    Args:
        measured: Settings and scores.
        protocol: Its name.
        version_hash: From `protocol_version`.
        weights: Weights that were evaluated.
        device: Where it ran.
        seconds: In total, or by part.

    """
    around = environment(device)
    return {
        "protocol": {"name": protocol, "version": version_hash},
        **measured,
        **asdict(weights),
        "midway": version("midway-network"),
        "date": around["date"],
        "environment": around,
        "seconds": seconds,
    }


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json``."""
    text = json.dumps(results, indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "results.json", lambda file: file.write(text.encode()))
