"""Pretraining on the 70,000 dashcam videos of BDD100K (paper: sections 4.1, B.1, B.2)."""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.experiments.base import Experiment
from midway.methods.ibot import IbotConfig
from midway.methods.mae import MaeConfig
from midway.methods.midway import MidwayConfig
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.vit import EncoderConfig
from midway.models.midway import NetworkConfig
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig


def midway_vits() -> Experiment:
    """ViT-S on BDD100K, 300 epochs: the recipe of `midway-bdd-vit-s-ep300.pth`.

    Command: ``midway train bdd100k.midway_vits --data.root bdd100k/videos/train``
    Cost: 21.0 M pairs, 403.8 GFLOP each; the paper's run took 66 h on 2 A100.
    Expect (paper, table 1; not run here): BDD100K linear 39.7 mIoU, Sintel clean 4.1 EPE.
    """
    return Experiment(
        method=MidwayConfig(),
        data=ClipsConfig(
            root="bdd100k/videos/train",
            gap_seconds=(0.5, 1.0),
            starts="random",
            draws_per_clip=5,
            batch_size=200,
        ),
        optim=OptimConfig(clip="per_tensor"),
        run=RunConfig(folder=Path("runs/bdd100k.midway_vits"), epochs=300, precision="16-mixed"),
    )


def midway_vitb() -> Experiment:
    """ViT-B on BDD100K, 300 epochs: the recipe of `midway-bdd-vit-b-ep300.pth`.

    The midway width is 192. The release sets 384 under a misspelt key, so that only the shapes in
    its file decide. For 384, give ``--method.network.dynamics.midway-width 384`` and
    ``--method.network.dynamics.midway-heads 6``.

    Command: ``midway train bdd100k.midway_vitb --data.root bdd100k/videos/train``
    Cost: 21.0 M pairs; the paper's run took 27 h on 8 RTX A6000.
    Expect (paper, table 1; not run here): BDD100K linear 48.2 mIoU, Sintel clean 4.1 EPE.
    """
    base = midway_vits()
    network = NetworkConfig(encoder=EncoderConfig(width=768, heads=12), dynamics=DynamicsConfig())
    return replace(
        base,
        method=MidwayConfig(network=network),
        run=replace(base.run, folder=Path("runs/bdd100k.midway_vitb")),
    )


def mae_vits() -> Experiment:
    """ViT-S by MAE on single frames of BDD100K, 300 epochs: MAE's recipe, batches of 4096.

    Command: ``midway train bdd100k.mae_vits --data.root bdd100k/videos/train``
    Cost: 21.0 M frames, 15.3 GFLOP each; not run.
    Expect: nothing published; the paper pretrains MAE on Walking Tours only.
    """
    return Experiment(
        method=MaeConfig(),
        data=ClipsConfig(
            root="bdd100k/videos/train", starts="random", draws_per_clip=4, batch_size=1024
        ),
        optim=OptimConfig(
            lr=1.5e-4,
            final_lr=0.0,
            warmup_epochs=40.0,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            final_weight_decay=0.05,
            clip="none",
        ),
        run=RunConfig(
            folder=Path("runs/bdd100k.mae_vits"), epochs=300, accumulate=4, precision="16-mixed"
        ),
    )


def ibot_vits() -> Experiment:
    """ViT-S by iBOT on single frames of BDD100K, 800 epochs: iBOT's recipe, batches of 1024.

    Command: ``midway train bdd100k.ibot_vits --data.root bdd100k/videos/train``
    Cost: 56.0 M frames, 133.4 GFLOP each; not run.
    Expect (paper, table 1; not run here): BDD100K linear 27.2 mIoU, UperNet 35.5; Sintel clean
    13.0 EPE.
    """
    return Experiment(
        method=IbotConfig(),
        data=ClipsConfig(
            root="bdd100k/videos/train", starts="random", draws_per_clip=4, batch_size=256
        ),
        optim=OptimConfig(clip="per_tensor"),
        run=RunConfig(
            folder=Path("runs/bdd100k.ibot_vits"), epochs=800, accumulate=4, precision="16-mixed"
        ),
    )


def ablation(name: str, **dynamics: object) -> Experiment:
    """Return a row of table 3 or 5: ViT-S, 100 epochs, with changed fields of `DynamicsConfig`.

    Args:
        name: Name of the experiment and of its run folder.
        dynamics: New values by field.

    """
    base = midway_vits()
    changed = replace(DynamicsConfig(), **dynamics)  # pyright: ignore[reportArgumentType]
    return replace(
        base,
        method=MidwayConfig(network=NetworkConfig(dynamics=changed)),
        run=replace(base.run, epochs=100, folder=Path("runs") / name),
    )
