"""Results of evaluations: provenance of the numbers, and `results.json`."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast

import torch

from midway.atomic import write_text
from midway.config import finite, json_text
from midway.models.flow.network import flow_file
from midway.models.weights.files import sha256_of
from midway.models.weights.sources import EncoderSource, OpenedEncoder, open_encoder
from midway.train.run import RunConfig, environment


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
    """Opened network or encoder: hashes of its weights and of their file."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the names and values of its tensors."""
        ...

    @property
    def file(self) -> str | None:
        """File of the weights, if any."""
        ...

    @property
    def file_sha256(self) -> str | None:
        """SHA-256 of that file."""
        ...


@dataclass(frozen=True, kw_only=True)
class Weights:
    """Provenance of the evaluated weights."""

    weights_sha256: str | None = None
    """SHA-256 of the names and values of the tensors; for a flow network, of its file."""
    checkpoint: str | None = None
    """File that they were read from; None for fresh weights and models of timm."""
    checkpoint_sha256: str | None = None
    """SHA-256 of that file."""


NO_WEIGHTS = Weights()
"""Provenance of a method without weights."""


def weights_of(opened: Opened) -> Weights:
    """Return the provenance of an opened network's weights."""
    return Weights(
        weights_sha256=opened.weights_sha256,
        checkpoint=opened.file,
        checkpoint_sha256=opened.file_sha256,
    )


def weights_of_flow(path: Path | str) -> Weights:
    """Return the provenance of a flow network, by its file or the folder of its finetuning."""
    file = flow_file(path)
    found = sha256_of(file)
    return Weights(weights_sha256=found, checkpoint=str(file), checkpoint_sha256=found)


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


class Probe(Protocol):
    """Configuration of an evaluation that trains a readout on an encoder."""

    @property
    def encoder(self) -> EncoderSource:
        """Source of the encoder."""
        ...

    @property
    def run(self) -> RunConfig:
        """Training run of the readout."""
        ...


P = TypeVar("P", bound=Probe)


def open_expected(config: P) -> tuple[P, OpenedEncoder]:
    """Open the encoder, and add the hash of its weights to the configuration.

    A resumed run checks the hash.

    Raises:
        MidwayError: There is no such encoder, or its weights are not those of the run's start.

    """
    torch.manual_seed(config.run.seed)
    opened = open_encoder(config.encoder)
    source = replace(config.encoder, weights_sha256=opened.weights_sha256)
    return replace(cast("Any", config), encoder=source), opened


def seconds_trained(folder: Path) -> float:
    """Return the time in the training loop, including that before an interruption."""
    last = (folder / "metrics.jsonl").read_text().splitlines()[-1]
    return round(json.loads(last)["seconds"], 1)


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json`` to a folder, atomically; the folder is created if it is missing."""
    text = json_text(results, indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "results.json", text)
