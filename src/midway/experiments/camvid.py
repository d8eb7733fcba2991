"""Short pretraining on real frames or videos, for a CPU."""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.experiments import synthetic
from midway.experiments.base import Experiment
from midway.methods.dora import DoraConfig
from midway.methods.dynamo import DynamoConfig


def midway_tiny() -> Experiment:
    """Small ViT on CamVid's frames at 1 Hz or any folder of videos, 200 steps.

    A sample is a pair of frames 0.5 to 1 s apart, and every frame with a target is a source.

    Command: ``midway train camvid.midway_tiny --data.root CamVid/train``
    Cost: 2 minutes on 2 CPU cores; 8 for a folder of 720p videos.
    Expect: a loss that falls from 6.4 to 5.8; longer runs are in docs/RESULTS.md.
    """
    base = synthetic.midway_tiny()
    # With a narrow bottleneck, the first targets, not yet centred, are nearly equal for all crops,
    # so that the loss would start low and rise. With 512 it starts near log(prototypes) and falls.
    head = replace(synthetic.TINY.head, bottleneck=512)
    return replace(
        base,
        method=replace(synthetic.BOTH_TERMS, network=replace(synthetic.TINY, head=head)),
        data=ClipsConfig(
            root="CamVid/train",
            fps=30.0,
            gap_seconds=(0.5, 1.0),
            starts="every_frame",
            batch_size=16,
            num_workers=1,
        ),
        run=replace(base.run, folder=Path("runs/camvid.midway_tiny"), steps=200, log_every=10),
    )


def poodle_tiny() -> Experiment:
    """Small PooDLe on CamVid's frames or any folder of videos, 300 steps, with flow by matching.

    Command: ``midway train camvid.poodle_tiny --data.root CamVid/train``
    Cost: 6 minutes on a CPU core.
    Expect: dense and pooled loss that fall from 2 to 0.2 and 0.6 (docs/methods/poodle.md).
    """
    base = synthetic.poodle_tiny()
    return replace(
        base,
        method=replace(base.method, frame_area=(0.3, 0.9)),
        data=midway_tiny().data,
        run=replace(base.run, folder=Path("runs/camvid.poodle_tiny"), log_every=10),
    )


def dino_tiny() -> Experiment:
    """DINO on pairs of CamVid's frames or any folder of videos, 300 steps.

    Command: ``midway train camvid.dino_tiny --data.root CamVid/train``
    Cost: 2 minutes on 2 CPU cores.
    Expect: a loss between 4.3 and 5.2, below log(256) = 5.55, and a linear probe no better than
    that of the untrained network; with ``--run.steps 1500`` 3.5 points of mIoU above it
    (docs/methods/dino.md).
    """
    base, recipe = midway_tiny(), synthetic.dino_tiny()
    run = replace(base.run, folder=Path("runs/camvid.dino_tiny"), steps=300)
    return replace(base, method=recipe.method, optim=recipe.optim, run=run)


def mae_tiny() -> Experiment:
    """Small ViT by MAE on CamVid's frames or any folder of videos, 300 steps.

    Command: ``midway train camvid.mae_tiny --data.root CamVid/train``
    Cost: 70 s of one CPU core, most of it for decoding.
    Expect: a loss that falls from 1.4 to 0.6; scores are in docs/methods/mae.md.
    """
    return _on_frames(synthetic.mae_tiny(), "mae_tiny")


def ibot_tiny() -> Experiment:
    """Small ViT by iBOT on CamVid's frames or any folder of videos, 300 steps.

    Command: ``midway train camvid.ibot_tiny --data.root CamVid/train``
    Cost: 2 minutes of one CPU core.
    Expect: a class loss that rises from 4.7 to 5.2 while the centre settles, below log(256) = 5.5,
    and a patch loss that falls from 2.7 to 2.2; scores are in docs/methods/ibot.md.
    """
    return _on_frames(synthetic.ibot_tiny(), "ibot_tiny")


def _on_frames(base: Experiment, name: str) -> Experiment:
    """Return the same short run on every frame of CamVid."""
    data = replace(midway_tiny().data, batch_size=base.data.batch_size)
    return replace(base, data=data, run=replace(base.run, folder=Path(f"runs/camvid.{name}")))


def croco_tiny() -> Experiment:
    """Small CroCo on CamVid's frames at 1 Hz or any folder of videos, 300 steps.

    Command: ``midway train camvid.croco_tiny --data.root CamVid/train``
    Cost: 2 minutes on one CPU core, most of them for reading.
    Expect: a loss that falls from 1.49 to 0.5; 1 is that of grey patches.
    """
    return _on_frames(synthetic.croco_tiny(), "croco_tiny")


def videomae_tiny() -> Experiment:
    """Small VideoMAE of four frames on CamVid's frames at 1 Hz or any folder of videos, 300 steps.

    Command: ``midway train camvid.videomae_tiny --data.root CamVid/train``
    Cost: 3 minutes on one CPU core, most of them for reading.
    Expect: a loss that falls from 1.24 to 0.94; 1 is that of grey cuboids.
    """
    return _on_frames(synthetic.videomae_tiny(), "videomae_tiny")


def dora_tiny() -> Experiment:
    """DoRA on clips of four CamVid frames, 1 s apart, or of any folder of videos; 300 steps.

    Command: ``midway train camvid.dora_tiny --data.root CamVid/train``
    Cost: 30 GFLOP a step; 20 minutes on one core that others used too.
    Expect: a loss below log(256) = 5.55, no gain over the untrained network (docs/methods/dora.md).
    """
    base = midway_tiny()
    return replace(
        base,
        # With the paper's momentum the teacher would lag behind in a run this short.
        method=replace(DoraConfig.tiny(), teacher_momentum=0.99),
        data=replace(base.data, gap_seconds=(1.0, 1.0)),
        optim=replace(base.optim, lr=1e-3, clip_norm=3.0),
        run=replace(base.run, folder=Path("runs/camvid.dora_tiny"), steps=300),
    )


def dynamo_tiny() -> Experiment:
    """DynaMo with its DINO term on pairs of CamVid's frames or any folder of videos; 300 steps.

    Command: ``midway train camvid.dynamo_tiny --data.root CamVid/train``
    Cost: 24 GFLOP a step; 38 minutes on one core that many others used too.
    Expect: dynamics with a fifth of the error of copying (docs/methods/dynamo.md).
    """
    base = midway_tiny()
    return replace(
        base,
        # With the paper's momentum the teacher would lag behind in a run this short.
        method=replace(DynamoConfig.tiny(), teacher_momentum=0.99),
        optim=replace(base.optim, lr=1e-3, clip_norm=3.0),
        run=replace(base.run, folder=Path("runs/camvid.dynamo_tiny"), steps=300),
    )
