"""Pretraining on the Venice video of Walking Tours (paper: sections 4.1, B.2)."""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.experiments import bdd100k
from midway.experiments.base import Experiment
from midway.methods.dino import DinoConfig
from midway.methods.dora import DoraConfig
from midway.methods.dynamo import DynamoConfig
from midway.methods.poodle import PoodleConfig
from midway.models.encoders.poodle import SpatialDecoderConfig


def midway_vits() -> Experiment:
    """ViT-S on Walking Tours Venice, 100 epochs: the recipe of `midway-wt-venice-vit-s-ep100.pth`.

    Every frame is a source; gaps are the release's 15 to 30 frames at 30 fps. For the 0.5 s of the
    paper's text, give ``--data.gap-seconds 0.5 0.5``. A blank end of the file is left out.

    Command: ``midway train walking_tours.midway_vits --data.root walking_tours/venice.mp4``
    Cost: the paper's run took 29 h on 4 RTX A6000.
    Expect (paper, table 2; not run here): ADE20K UperNet 33.4 mIoU, Sintel clean 5.2 EPE.
    """
    base = bdd100k.midway_vits()
    return replace(
        base,
        data=ClipsConfig(
            root="walking_tours/venice.mp4",
            gap_seconds=(0.5, 1.0),
            starts="every_frame",
            cut_blank_tail=True,
            batch_size=200,
        ),
        run=replace(base.run, epochs=100, folder=Path("runs/walking_tours.midway_vits")),
    )


def midway_vits_300() -> Experiment:
    """ViT-S on Walking Tours Venice, 300 epochs: the longer run of table 4.

    Command: ``midway train walking_tours.midway_vits_300 --data.root walking_tours/venice.mp4``
    Cost: three times that of `midway_vits`.
    Expect (paper, table 4; not run here): ADE20K UperNet 36.9 mIoU, Sintel clean 4.0 EPE.
    """
    base = midway_vits()
    folder = Path("runs/walking_tours.midway_vits_300")
    return replace(base, run=replace(base.run, epochs=300, folder=folder))


def dino_vits() -> Experiment:
    """DINO with a ViT-S on pairs of Walking Tours Venice, 100 epochs: the paper's baseline.

    Command: ``midway train walking_tours.dino_vits --data.root walking_tours/venice.mp4``
    Cost: 47.2 G multiply-adds forward per pair; the paper took a released network.
    Expect (paper, table 2; not run here): ADE20K UperNet 29.2 mIoU, Sintel clean 12.4 EPE.
    """
    base = midway_vits()
    folder = Path("runs/walking_tours.dino_vits")
    return replace(base, method=DinoConfig(), run=replace(base.run, folder=folder))


def poodle_r50() -> Experiment:
    """PooDLe with a ResNet-50 on Walking Tours Venice at 512x1024, 20 epochs: the row of table 2.

    Command: ``midway train walking_tours.poodle_r50 --data.root walking_tours/venice.mp4
    --method.flow.weights raft-things.pth``
    Cost: 10 times the multiply-adds of `bdd100k.poodle_r50` per pair.
    Expect (paper, table 2; the authors' weights, not run here): ADE20K UperNet 36.6 mIoU.
    """
    base = bdd100k.poodle_r50()
    return replace(
        base,
        method=PoodleConfig(
            encoder=SpatialDecoderConfig(factor=0.5), size=(512, 1024), frame_area=(0.65, 0.88)
        ),
        data=ClipsConfig(
            root="walking_tours/venice.mp4",
            gap_seconds=(0.5, 0.5),
            starts="every_frame",
            cut_blank_tail=True,
            batch_size=128,
        ),
        run=replace(base.run, epochs=20, folder=Path("runs/walking_tours.poodle_r50")),
    )


def mae_vits() -> Experiment:
    """ViT-S by MAE on all single frames of Walking Tours Venice, 100 epochs.

    Command: ``midway train walking_tours.mae_vits --data.root walking_tours/venice.mp4``
    Cost: 15.3 GFLOP per frame; not run.
    Expect (paper, table 2, from PooDLe; not run here): ADE20K UperNet 24.1 mIoU, Sintel clean
    11.1 EPE.
    """
    return _on_frames(bdd100k.mae_vits(), "mae_vits")


def ibot_vits() -> Experiment:
    """ViT-S by iBOT on all single frames of Walking Tours Venice, 100 epochs.

    Command: ``midway train walking_tours.ibot_vits --data.root walking_tours/venice.mp4``
    Cost: 133.4 GFLOP per frame; not run.
    Expect (paper, table 2, from DoRA; not run here): ADE20K UperNet 33.9 mIoU.
    """
    return _on_frames(bdd100k.ibot_vits(), "ibot_vits")


def _on_frames(base: Experiment, name: str) -> Experiment:
    """Return the recipe on every frame of the video, for 100 epochs."""
    data = replace(
        midway_vits().data,
        batch_size=base.data.batch_size,
        gap_seconds=base.data.gap_seconds,
    )
    return replace(
        base,
        data=data,
        run=replace(base.run, epochs=100, folder=Path(f"runs/walking_tours.{name}")),
    )


def croco_vits() -> Experiment:
    """CroCo v2 with ViT-S on Walking Tours Venice, 100 epochs.

    Command: ``midway train walking_tours.croco_vits --data.root walking_tours/venice.mp4``
    Cost: 41 GFLOP per pair; not run.
    Expect (paper, table 2; not run here): ADE20K UperNet 32.0 mIoU, Sintel clean 5.9 EPE.
    """
    return _on_frames(bdd100k.croco_vits(), "croco_vits")


def videomae_vits() -> Experiment:
    """VideoMAE with ViT-S on Walking Tours Venice, 100 epochs.

    Command: ``midway train walking_tours.videomae_vits --data.root walking_tours/venice.mp4``
    Cost: 69 GFLOP per clip; not run.
    Expect (paper, table 2; not run here): ADE20K UperNet 7.8 mIoU, Sintel clean 7.0 EPE.
    """
    return _on_frames(bdd100k.videomae_vits(), "videomae_vits")


def dora_vits() -> Experiment:
    """DoRA with a ViT-S on Walking Tours Venice, 100 epochs: clips of 8 frames, 1 s apart.

    Every frame is the first of a clip. The quirks of the release are fixed; `dora_vits_released`
    reproduces them (docs/methods/dora.md).

    Command: ``midway train walking_tours.dora_vits --data.root walking_tours/venice.mp4``
    Cost: about 0.2 M clips an epoch, 997 GFLOP each; the release trains on 8 A100 of 80 GB.
    Expect (paper, table 2; not run here): ADE20K UperNet 35.2 mIoU, Sintel clean 12.4 EPE.
    """
    base = bdd100k.dora_vits()
    return replace(
        base,
        data=ClipsConfig(
            root="walking_tours/venice.mp4",
            gap_seconds=(1.0, 1.0),
            starts="every_frame",
            cut_blank_tail=True,
            batch_size=128,
        ),
        run=replace(base.run, epochs=100, folder=Path("runs/walking_tours.dora_vits")),
    )


def dora_vits_released() -> Experiment:
    """DoRA with the quirks of its release, which `dora_vits` fixes.

    They are the threshold of the masks over the whole batch, the weights of the objects, and the
    local crop that is left out of the loss. Sinkhorn-Knopp stays in logarithms: in the release's
    linear float32 it may end in NaN and black masks.

    Command: ``midway train walking_tours.dora_vits_released --data.root walking_tours/venice.mp4``
    Cost: that of `dora_vits`.
    Expect (paper, table 2; not run here): ADE20K UperNet 35.2 mIoU, Sintel clean 12.4 EPE.
    """
    base = dora_vits()
    return replace(
        base,
        method=DoraConfig(threshold_over="batch", object_weights="falling", skip_first_local=True),
        run=replace(base.run, folder=Path("runs/walking_tours.dora_vits_released")),
    )


def dynamo_vits() -> Experiment:
    """DynaMo with a ViT-S and DINO's term on Walking Tours Venice, 100 epochs, as `midway_vits`.

    Command: ``midway train walking_tours.dynamo_vits --data.root walking_tours/venice.mp4``
    Cost: 282 GFLOP a pair.
    Expect: the paper trains DynaMo on BDD100K only.
    """
    base = midway_vits()
    return replace(
        base,
        method=DynamoConfig(),
        run=replace(base.run, folder=Path("runs/walking_tours.dynamo_vits")),
    )
