"""Configuration of the depth probe, and its protocol on NYU Depth v2."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import tyro

from midway.config import from_json, require, to_json
from midway.data.depth.images import DepthData
from midway.evals.readouts.segmentation_protocols import MEASURING, POLY
from midway.evals.results import protocol_version
from midway.models.weights.sources import EncoderSource
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

VERSION = 1
"""Version of the code; increased if it computes different results from the same configuration."""
MACHINE = ("root", "num_workers")
"""Fields of the data that do not affect the results."""


@dataclass(frozen=True, kw_only=True)
class DepthReadoutConfig:
    """Linear head over bins of depth."""

    levels: tuple[int, ...] = (3, 6, 9, 12)
    """Input levels, 1-based, concatenated; negative ones count from the top. DINOv2's "lin. 4" has
    four, its "lin. 1" the top one."""
    bins: int = 256
    """Number of bins of equal width from 0 to `data.max_metres`."""

    def __post_init__(self) -> None:
        rules = {
            "levels: give one or more": bool(self.levels),
            "bins: give 2 or more": self.bins >= 2,
        }
        require("readout", rules)


@dataclass(frozen=True, kw_only=True)
class DepthConfig:
    """Configuration of a depth evaluation."""

    protocol: str
    """Name of the protocol that provides the defaults."""
    encoder: Annotated[EncoderSource, tyro.conf.OmitArgPrefixes] = field(
        default_factory=EncoderSource
    )
    data: DepthData = field(default_factory=DepthData)
    readout: DepthReadoutConfig = field(default_factory=DepthReadoutConfig)
    optim: OptimConfig = POLY
    run: RunConfig
    """Training run of the readout."""
    num_pictures: int = 8
    """Number of test images that are drawn."""

    def version(self) -> str:
        """Return a short hash of the fields that determine the results.

        Network and machine are not part of it.
        """
        values: dict[str, Any] = to_json(self)
        parts = {name: values[name] for name in ("data", "readout", "optim")}
        parts["data"] = {k: v for k, v in parts["data"].items() if k not in MACHINE}
        parts["run"] = {name: values["run"][name] for name in MEASURING}
        return protocol_version(VERSION, parts | {"features": self.encoder.features})


def config_from_json(values: Mapping[str, Any], *, where: str) -> DepthConfig:
    """Return the configuration in the ``config.json`` of a depth readout's run folder.

    Args:
        values: Contents of the file.
        where: Path of the file, for error messages.

    Raises:
        MidwayError: A key or value is missing or unknown.

    """
    return from_json(DepthConfig, values, where=where)


def nyu_linear() -> DepthConfig:
    """Evaluate on NYU Depth v2: frozen encoder, linear head over 256 bins, 25 epochs.

    The head is DINOv2's "lin. 4" without the class token; loss and crops are those of AdaBins.

    Command: ``midway eval depth --protocol nyu-linear --network RUN --data.root DIR``. Not run.
    """
    name = "nyu-linear"
    return DepthConfig(
        protocol=name,
        optim=OptimConfig(
            lr=1e-3,
            scale_lr=False,
            final_lr=0.0,
            warmup_epochs=0.0,
            warmup_steps=1_500,
            schedule="poly",
            weight_decay=0.01,
            final_weight_decay=0.01,
            clip="none",
        ),
        run=RunConfig(folder=Path("runs/depth") / name, steps=38_000, log_every=50),
    )


PROTOCOLS: dict[str, Callable[[], DepthConfig]] = {"nyu-linear": nyu_linear}
