"""Configuration of flow finetuning, and its named protocols."""

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
from midway.models.flow.base import DptConfig
from midway.models.flow.tiles import TileConfig
from midway.models.weights.release import ReleaseHints
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

VERSION = 1
"""Version of the code; increased if it computes different results from the same configuration."""
FINAL_OVERLAP = 0.9
"""Overlap of tiles in the final test, from CroCo v2's published commands."""
MEASURED = {
    "data": ("parts", "crop", "augment", "batch_size", "pairs_per_epoch"),
    "validation": ("parts", "every_steps", "overlap"),
    "start": ("keep", "encoder", "frozen"),
    "run": ("steps", "epochs", "precision", "accumulate"),
}
"""Fields that determine a protocol's results. The others choose the network and the machine."""
SINTEL_SUBVAL = (FlowPart(dataset="sintel", split="subval", folder="Sintel"),)
THINGS_TEST = (FlowPart(dataset="things", split="test", folder="FlyingThings3D"),)
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
    """Initial weights of the network, and the parts of them that are kept."""

    network: Annotated[str, tyro.conf.arg(prefix_name=False)] = ""
    """Required: run folder of any method, release .pth, .ckpt, .safetensors (of midway, or an
    encoder with timm's names), hub id, timm:NAME, or random for a randomly initialised ViT-S/16."""
    keep: Literal["all", "encoder", "nothing"] = "all"
    """Pretrained weights that are kept: all, with those of the dynamics or of a pair encoder such
    as CroCo's decoder; those of the encoder, with fresh dynamics ("encoder only" in the paper); or
    none, which keeps only the sizes."""
    encoder: Literal["student", "teacher"] = "student"
    """Encoder of the run or network."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    """New dynamics for an encoder without any; a Midway network brings its own."""
    frozen: bool = False
    """If True, only the head is trained."""
    release: Annotated[ReleaseHints, tyro.conf.OmitArgPrefixes] = field(
        default_factory=ReleaseHints
    )
    """Overrides for values that a release file does not state, or states wrongly."""


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation during training."""

    parts: tuple[FlowPart, ...]
    """Datasets, below the root of the training data."""
    every_steps: int = 3_750
    """Steps between two validations."""
    overlap: float = 0.7
    """Overlap of neighbouring tiles, as a share of their size."""
    final_overlap: float = FINAL_OVERLAP
    """Overlap in the final test. At 0.9 and a crop of a quarter of both sides, a pair has 1,024
    tiles."""
    tiles_at_once: int = 8
    """Tiles per forward pass."""
    tests: tuple[FlowPart, ...] = ()
    """Further datasets that the final test scores, each on its own."""

    def __post_init__(self) -> None:
        # Checked here, because an error would otherwise surface at the first validation.
        if not self.parts or self.every_steps < 1:
            raise MidwayError(
                f"validation: {len(self.parts)} datasets every {self.every_steps} steps; give 1 or "
                "more of both"
            )
        for overlap in (self.overlap, self.final_overlap):
            TileConfig(overlap=overlap, batch_size=self.tiles_at_once)


@dataclass(frozen=True, kw_only=True)
class FinetuneConfig:
    """Configuration of a flow finetuning."""

    protocol: str
    """Name of the protocol that provides the defaults."""
    data: FlowDataConfig
    validation: ValidationConfig
    run: RunConfig
    start: StartConfig = field(default_factory=StartConfig)
    dpt: DptConfig = field(default_factory=DptConfig)
    optim: OptimConfig = OPTIM

    def version(self) -> str:
        """Return a short hash of the fields that determine the results.

        Network and machine are not part of it.
        """
        values: dict[str, Any] = to_json(self)
        parts = {part: {name: values[part][name] for name in MEASURED[part]} for part in MEASURED}
        # Hashes of version 0.1 stay the same: it had one kind of final rate, and no further tests.
        if not self.optim.scale_final_lr:
            del values["optim"]["scale_final_lr"]
        if self.validation.final_overlap != FINAL_OVERLAP:
            parts["validation"]["final_overlap"] = self.validation.final_overlap
        if self.validation.tests:
            parts["validation"]["tests"] = values["validation"]["tests"]
        return protocol_version(VERSION, parts | {name: values[name] for name in ("dpt", "optim")})


def paper() -> FinetuneConfig:
    """Finetune for the main tables: four datasets, 240 epochs of 30,000 pairs.

    The best network by Sintel's validation is scored on it and on FlyingThings' test pairs.

    Command: ``midway eval flow_finetune --protocol paper --network RUN --data.root DIR``
    Cost: not run.
    Expect: Sintel validation clean 4.1, final 4.9, FlyingThings clean 7.3, final 6.8 (the paper's,
        for a ViT-S of 300 epochs).
    """
    return FinetuneConfig(
        protocol="paper",
        data=FlowDataConfig(root=Path("data/flow"), parts=PAPER_MIXTURE),
        validation=ValidationConfig(parts=SINTEL_SUBVAL, tests=THINGS_TEST),
        run=RunConfig(
            folder=Path("runs/flow.paper"),
            steps=900_000,
            precision="32-true",
            log_every=50,
            checkpoint_every=3_750,
        ),
    )


def ablation() -> FinetuneConfig:
    """Finetune for tables 3 and 5: FlyingChairs and FlyingThings, validated on Sintel.

    Validation uses all of Sintel clean. The paper does not state the length of training or the
    proportions of the mixture; those of the main tables are used. Not run.
    """
    main = paper()
    sintel = FlowPart(dataset="sintel", split="all-clean", folder="Sintel")
    return replace(
        main,
        protocol="ablation",
        data=replace(main.data, parts=ABLATION_MIXTURE),
        validation=replace(main.validation, parts=(sintel,), tests=()),
        run=replace(main.run, folder=Path("runs/flow.ablation")),
    )


def short() -> FinetuneConfig:
    """Finetune for quick comparisons: the main tables' data for 20,000 steps.

    The learning rate is five times that of the main tables. Not run.
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
    """Finetune on synthetic worlds, on a CPU.

    `write_flow_dataset` writes the data, to `train` and `val` below the root.
    """
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


def own_pairs() -> FinetuneConfig:
    """Finetune on your own pairs: splits "train" and "val" below the root, 20,000 steps.

    Command: ``midway eval flow_finetune --protocol folder --network RUN --data.root DIR``. Page:
    docs/OWN_LABELS.md. Not run.
    """
    base = short()
    # No published score is compared with, and 0.9 takes eight times as long.
    overlap = base.validation.overlap
    train, val = (FlowPart(dataset="folder", split=name, folder="") for name in ("train", "val"))
    return replace(
        base,
        protocol="folder",
        data=replace(base.data, parts=(train,)),
        validation=replace(base.validation, parts=(val,), tests=(), final_overlap=overlap),
        run=replace(base.run, folder=Path("runs/flow.folder")),
    )


PROTOCOLS: dict[str, Callable[[], FinetuneConfig]] = {
    "paper": paper,
    "ablation": ablation,
    "short": short,
    "synthetic": synthetic,
    "folder": own_pairs,
}
