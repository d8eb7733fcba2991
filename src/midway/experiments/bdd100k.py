"""Pretraining on the 70,000 dashcam videos of BDD100K (paper: sections 4.1, B.1, B.2)."""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.experiments.base import Experiment
from midway.methods.croco import SIZES, CrocoConfig
from midway.methods.dino import DinoConfig
from midway.methods.dora import DoraConfig
from midway.methods.dynamo import DynamoConfig
from midway.methods.ibot import IbotConfig
from midway.methods.mae import MaeConfig
from midway.methods.midway import MidwayConfig
from midway.methods.poodle import PoodleConfig
from midway.methods.videomae import VideoMaeConfig
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.poodle import SpatialDecoderConfig
from midway.models.encoders.vit import EncoderConfig
from midway.models.flow.external import FlowConfig
from midway.models.midway import NetworkConfig
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

MASKED = OptimConfig(
    lr=1.5e-4,
    final_lr=0.0,
    warmup_epochs=40.0,
    betas=(0.9, 0.95),
    weight_decay=0.05,
    final_weight_decay=0.05,
    clip="none",
)
"""Published recipe of MAE, which VideoMAE and CroCo follow."""


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


def dino_vits() -> Experiment:
    """DINO with a ViT-S on pairs of BDD100K, 300 epochs: the paper's baseline.

    Command: ``midway train bdd100k.dino_vits --data.root bdd100k/videos/train``
    Cost: 21.0 M pairs, 47.2 G multiply-adds forward each (50.4 in table 9); hardware and time of
    the paper's run are not stated.
    Expect (paper, table 1; not run here): BDD100K linear 36.7 mIoU, Sintel clean 11.5 EPE.
    """
    base = midway_vits()
    folder = Path("runs/bdd100k.dino_vits")
    return replace(base, method=DinoConfig(), run=replace(base.run, folder=folder))


def dino_vitb() -> Experiment:
    """DINO with a ViT-B on pairs of BDD100K, 300 epochs: the paper's larger baseline.

    Command: ``midway train bdd100k.dino_vitb --data.root bdd100k/videos/train``
    Cost: 21.0 M pairs; hardware and time of the paper's run are not stated.
    Expect (paper, table 1; not run here): BDD100K linear 44.0 mIoU, Sintel clean 12.1 EPE.
    """
    base = dino_vits()
    assert isinstance(base.method, DinoConfig)
    method = replace(base.method, encoder=EncoderConfig(width=768, heads=12))
    return replace(
        base, method=method, run=replace(base.run, folder=Path("runs/bdd100k.dino_vitb"))
    )


def poodle_r50() -> Experiment:
    """PooDLe with a ResNet-50 on BDD100K at 224 pixels, 300 epochs: the row of table 1.

    Command: ``midway train bdd100k.poodle_r50 --data.root bdd100k/videos/train
    --method.flow.weights raft-things.pth``
    Cost: 21.0 M pairs of 246 G multiply-adds forward, 115 of them RAFT's.
    Expect (paper, table 1; not run here): BDD100K linear 35.1, UperNet 47.4 mIoU.
    """
    return Experiment(
        method=PoodleConfig(),
        data=ClipsConfig(
            root="bdd100k/videos/train",
            gap_seconds=(0.5, 1.0),
            starts="random",
            draws_per_clip=2,
            batch_size=128,
        ),
        optim=OptimConfig(
            lr=5e-4,
            scale_lr=False,
            final_lr=0.0,
            warmup_epochs=2,
            weight_decay=0.01,
            final_weight_decay=0.01,
            clip="none",
        ),
        run=RunConfig(folder=Path("runs/bdd100k.poodle_r50"), epochs=300, precision="32-true"),
    )


def poodle_r50_released() -> Experiment:
    """PooDLe on BDD100K as the released code trains it: 512x1024 pixels, 100 epochs.

    It has the quirks of that code that change results: the decoder at half its width, the flow
    followed before the affine view is undone, and RAFT in training mode (docs/methods/poodle.md).

    Command: ``midway train bdd100k.poodle_r50_released --data.root bdd100k/videos/train
    --method.flow.weights raft-things.pth``
    Cost: 7.0 M pairs; the authors' run took 32 GPUs.
    Expect: not run here; the authors publish the weights of such a run.
    """
    base = poodle_r50()
    return replace(
        base,
        method=PoodleConfig(
            encoder=SpatialDecoderConfig(factor=0.5),
            size=(512, 1024),
            flow=FlowConfig(batch_statistics=True),
            warp_order="released",
        ),
        run=replace(base.run, epochs=100, folder=Path("runs/bdd100k.poodle_r50_released")),
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
        optim=MASKED,
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


def croco_vits() -> Experiment:
    """CroCo v2 with ViT-S on BDD100K, 300 epochs: the paper's baseline.

    The rates are the published ones. The published schedule of 250 epochs stops at 125; this one
    reaches its end. Batches hold five samples of a video each.

    Command: ``midway train bdd100k.croco_vits --data.root bdd100k/videos/train``
    Cost: 21.0 M pairs, 41 GFLOP each; not run.
    Expect (paper, table 1; not run here): BDD100K linear 21.2 mIoU, Sintel clean 5.1 EPE.
    """
    base = midway_vits()
    return replace(
        base,
        method=CrocoConfig(),
        data=replace(base.data, batch_size=250),
        optim=replace(MASKED, warmup_epochs=12.0),
        run=replace(base.run, folder=Path("runs/bdd100k.croco_vits")),
    )


def croco_vitb() -> Experiment:
    """CroCo v2 with ViT-B and its published base decoder; Midway's paper states no size for it.

    Command: ``midway train bdd100k.croco_vitb --data.root bdd100k/videos/train``
    Cost: 21.0 M pairs, 259 GFLOP each; not run.
    Expect (paper, table 1; not run here): BDD100K linear 16.3 mIoU, Sintel clean 3.0 EPE.
    """
    base = croco_vits()
    return replace(
        base,
        method=SIZES["vitb_base"],
        run=replace(base.run, folder=Path("runs/bdd100k.croco_vitb")),
    )


def croco_vitl() -> Experiment:
    """CroCo v2 with ViT-L and its published base decoder on BDD100K.

    Command: ``midway train bdd100k.croco_vitl --data.root bdd100k/videos/train``
    Cost: 21.0 M pairs, 548 GFLOP each; not run.
    Expect: not in the paper, and not run here.
    """
    base = croco_vits()
    return replace(
        base,
        method=SIZES["vitl_base"],
        run=replace(base.run, folder=Path("runs/bdd100k.croco_vitl")),
    )


def videomae_vits() -> Experiment:
    """VideoMAE with ViT-S on BDD100K, 300 epochs: the paper's baseline.

    A clip has 16 frames, four frames of a video of 30 fps apart as in the published recipe. A step
    has 1,000 clips, of which 250 at a time.

    Command: ``midway train bdd100k.videomae_vits --data.root bdd100k/videos/train``
    Cost: 21.0 M clips, 69 GFLOP each; not run.
    Expect (paper, table 1; not run here): BDD100K linear 7.8 mIoU, Sintel clean 7.2 EPE.
    """
    base = midway_vits()
    return replace(
        base,
        method=VideoMaeConfig(),
        data=replace(base.data, gap_seconds=(4 / 30, 4 / 30), batch_size=250),
        optim=replace(MASKED, final_lr=1e-5, scale_final_lr=True),
        run=replace(base.run, folder=Path("runs/bdd100k.videomae_vits"), accumulate=4),
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


def dora_vits() -> Experiment:
    """DoRA with a ViT-S on BDD100K, 300 epochs: clips of 8 frames, 1 s apart.

    The paper does not state the time between frames on BDD100K; 1 s is that of DoRA's own videos.

    Command: ``midway train bdd100k.dora_vits --data.root bdd100k/videos/train``
    Cost: 21.0 M clips, 997 GFLOP each.
    Expect (paper, table 1; not run here): BDD100K linear 30.4 mIoU, Sintel clean 11.5 EPE.
    """
    return Experiment(
        method=DoraConfig(),
        data=ClipsConfig(
            root="bdd100k/videos/train", gap_seconds=(1.0, 1.0), starts="random", batch_size=128
        ),
        optim=OptimConfig(final_lr=1e-5, clip="per_tensor"),
        run=RunConfig(folder=Path("runs/bdd100k.dora_vits"), epochs=300, precision="16-mixed"),
    )


def dynamo_vits() -> Experiment:
    """DynaMo with a ViT-S and DINO's term on BDD100K, 300 epochs, on the pairs of `midway_vits`.

    Command: ``midway train bdd100k.dynamo_vits --data.root bdd100k/videos/train``
    Cost: 21.0 M pairs, 282 GFLOP each.
    Expect (paper, table 1; not run here): BDD100K linear 36.8 mIoU; no flow numbers.
    """
    base = midway_vits()
    return replace(
        base,
        method=DynamoConfig(),
        run=replace(base.run, folder=Path("runs/bdd100k.dynamo_vits")),
    )
