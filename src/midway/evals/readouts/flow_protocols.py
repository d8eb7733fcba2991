"""What a flow finetuning is made of, and the protocols by name."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from midway.config import to_json
from midway.data.flow.loader import ABLATION_MIXTURE, PAPER_MIXTURE, FlowDataConfig, FlowPart
from midway.errors import MidwayError
from midway.evals.results import protocol_version
from midway.models.dynamics import DynamicsConfig
from midway.models.flow.network import DptConfig
from midway.models.flow.tiles import TileConfig
from midway.models.weights.release import ReleaseHints
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

VERSION = 1
"""Raised when the code makes something else of the same configuration."""
MEASURED = {
    "data": ("parts", "crop", "augment", "batch_size", "pairs_per_epoch"),
    "validation": ("parts", "every_steps", "overlap"),
    "start": ("keep", "encoder", "frozen"),
    "run": ("steps", "epochs", "precision", "accumulate"),
}
"""Fields that decide the numbers of a protocol; the others say where it runs, and on what."""
SINTEL_SUBVAL = (FlowPart(dataset="sintel", split="subval", folder="Sintel"),)
OPTIM = OptimConfig(
    lr=2e-5,
    scale_lr=False,
    final_lr=0.0,
    warmup_epochs=1.0,
    betas=(0.9, 0.95),
    weight_decay=0.05,
    final_weight_decay=0.05,
    clip="none",
)


@dataclass(frozen=True, kw_only=True)
class StartConfig:
    """What the network starts from."""

    network: Annotated[str, tyro.conf.arg(prefix_name=False)] = ""
    """Run folder of any method, release .pth, .ckpt, .safetensors (of midway, or an encoder with
    timm's names), hub id, timm:NAME, or random for a fresh ViT-S/16; it has to be given."""
    keep: Literal["all", "encoder", "nothing"] = "all"
    """What is taken of its weights. Without its dynamics this is "encoder only" of the paper; with
    nothing, its sizes alone count."""
    encoder: Literal["student", "teacher"] = "student"
    """Which encoder of a run or network."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    """Fresh ones, for an encoder that has none; a Midway network has its own."""
    frozen: bool = False
    """Train the head alone."""
    release: Annotated[ReleaseHints, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ReleaseHints
    )
    """For a release file, where its arguments are silent or wrong."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """What a network is validated on while it is trained."""

    parts: tuple[FlowPart, ...]
    """Below the root of the training data."""
    every_steps: int = 3_750
    overlap: float = 0.7
    tiles_at_once: int = 8

    def __post_init__(self) -> None:
        # What is wrong here would else be told after the first 3,750 steps.
        if not self.parts or self.every_steps < 1:
            raise MidwayError(
                f"validation of {len(self.parts)} datasets every {self.every_steps} steps; give 1 "
                "or more of both"
            )
        TileConfig(overlap=self.overlap, batch_size=self.tiles_at_once)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """All that a flow finetuning is made of."""

    protocol: str
    """Name of the protocol that the rest departs from."""
    data: FlowDataConfig
    validation: ValidationConfig
    run: RunConfig
    start: StartConfig = field(default_factory=StartConfig)
    dpt: DptConfig = field(default_factory=DptConfig)
    optim: OptimConfig = OPTIM

    def version(self) -> str:
        """Short hash of what decides the numbers, the network and the machine left out."""
        values: dict[str, Any] = to_json(self)
        parts = {part: {name: values[part][name] for name in MEASURED[part]} for part in MEASURED}
        return protocol_version(VERSION, parts | {name: values[name] for name in ("dpt", "optim")})


def paper() -> FinetuneConfig:
    """The main tables: four datasets, 240 epochs of 30,000 pairs.

    Command: ``midway eval flow_finetune --protocol paper --network RUN --data.root DIR``
    Cost: not run.
    Expect: Sintel validation clean 4.1, final 4.9 (the paper's, for a ViT-S of 300 epochs).
    """
    return FinetuneConfig(
        protocol="paper",
        data=FlowDataConfig(root=Path("data/flow"), parts=PAPER_MIXTURE),
        validation=ValidationConfig(parts=SINTEL_SUBVAL),
        run=RunConfig(
            folder=Path("runs/flow.paper"),
            steps=900_000,
            precision="32-true",
            log_every=50,
            checkpoint_every=3_750,
        ),
    )


def ablation() -> FinetuneConfig:
    """Tables 3 and 5: FlyingChairs and FlyingThings, validated on all of Sintel clean.

    The paper does not say how long and in what proportion: the main recipe's here. Not run.
    """
    main = paper()
    sintel = FlowPart(dataset="sintel", split="all-clean", folder="Sintel")
    return replace(
        main,
        protocol="ablation",
        data=replace(main.data, parts=ABLATION_MIXTURE),
        validation=replace(main.validation, parts=(sintel,)),
        run=replace(main.run, folder=Path("runs/flow.ablation")),
    )


def short() -> FinetuneConfig:
    """The main tables' data for 20,000 steps at five times the rate: to compare, not to report.

    Not run.
    """
    main = paper()
    return replace(
        main,
        protocol="short",
        validation=replace(main.validation, every_steps=2_000),
        optim=replace(OPTIM, lr=1e-4, warmup_epochs=0.25),
        run=replace(main.run, folder=Path("runs/flow.short"), steps=20_000, checkpoint_every=2_000),
    )


def synthetic() -> FinetuneConfig:
    """Worlds as `write_flow_dataset` writes them, in `train` and `val` of the root; for a CPU."""
    train, val = (
        FlowPart(dataset="synthetic", split="all", folder=name) for name in ("train", "val")
    )
    return FinetuneConfig(
        protocol="synthetic",
        data=FlowDataConfig(
            root=Path("data/flow"), parts=(train,), crop=(64, 96), batch_size=8, num_workers=1
        ),
        validation=ValidationConfig(parts=(val,), every_steps=250, overlap=0.5, tiles_at_once=16),
        dpt=DptConfig(widths=(24, 48, 96, 96), fused_width=32, last_width=16),
        optim=replace(OPTIM, lr=1e-4),
        run=RunConfig(
            folder=Path("runs/flow.synthetic"),
            steps=2_000,
            precision="32-true",
            accelerator="cpu",
            log_every=20,
            checkpoint_every=500,
        ),
    )


PROTOCOLS: dict[str, Callable[[], FinetuneConfig]] = {
    "paper": paper,
    "ablation": ablation,
    "short": short,
    "synthetic": synthetic,
}
