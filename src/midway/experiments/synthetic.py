"""Short pretraining on videos of textures, for a CPU.

The world measures textures, not recognition: random filters read its classes as well as a trained
network does (docs/RESULTS.md). `midway.experiments.recognition` has the world of shapes, which the
quickstart uses. Videos of textures are written by:

    from midway.data.synthetic.write import write_videos
    from midway.experiments.synthetic import WORLD

    write_videos("textures", WORLD, seeds=range(160))
"""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.world import WorldConfig
from midway.experiments.base import Experiment
from midway.methods.base import MethodConfig
from midway.methods.croco import CrocoConfig
from midway.methods.dino import DinoConfig
from midway.methods.dora import DoraConfig
from midway.methods.dynamo import DynamoConfig
from midway.methods.ibot import IbotConfig
from midway.methods.mae import MaeConfig
from midway.methods.midway import MidwayConfig
from midway.methods.poodle import PoodleConfig
from midway.methods.videomae import VideoMaeConfig
from midway.models.dino import HeadConfig
from midway.nn.subcrops import SubcropConfig
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

WORLD = WorldConfig(
    num_objects=5, object_size=(0.5, 0.9), texture_period_pixels=(8.0, 12.0), saturation=0.15
)
"""World of textures: one large object per class; classes differ in texture, not colour."""

BOTH_TERMS = MidwayConfig.tiny()
"""The paper's objective, dense and DINO term, on crops of 64 pixels."""
TINY = BOTH_TERMS.network
"""Small network: four blocks of width 96."""


def midway_tiny() -> Experiment:
    """Small ViT on videos of textures, dense term only, 1,500 steps.

    Two crops of a frame of these worlds have so little in common that the DINO loss does not fall,
    and the term makes features worse (docs/experiments/recognition.md).

    Command: ``midway train synthetic.midway_tiny --data.root textures``
    Cost: 4 minutes on 2 CPU cores, with ``--run.precision bf16-mixed`` if they support it.
    Expect: a linear readout 20 points of mIoU above the untrained network (docs/RESULTS.md).
    """
    return Experiment(
        method=replace(
            BOTH_TERMS,
            dino_weight=0.0,
            # Without the DINO term, its crops are not used: as few and small as possible.
            views=replace(BOTH_TERMS.views, num_local=0, global_size=(8, 8), local_size=(8, 8)),
            # With the paper's momentum the teacher would lag behind in a run this short.
            teacher_momentum=0.95,
        ),
        data=ClipsConfig(
            root="textures",
            # Objects move by about half a patch, so that a patch keeps its texture at any phase.
            gap_seconds=(0.1, 0.3),
            starts="random",
            draws_per_clip=4,
            batch_size=16,
            num_workers=1,
        ),
        optim=OptimConfig(
            lr=3e-3, scale_lr=False, warmup_epochs=2, final_weight_decay=0.04, clip_norm=0.5
        ),
        run=RunConfig(
            folder=Path("runs/synthetic.midway_tiny"),
            steps=1500,
            precision="32-true",
            accelerator="cpu",
            log_every=20,
        ),
    )


def dino_tiny() -> Experiment:
    """DINO on pairs of videos of textures, 300 steps.

    Command: ``midway train synthetic.dino_tiny --data.root textures``
    Cost: 2 minutes on 2 CPU cores.
    Expect (not run here): where two crops of a place have too little in common, a warning after the
    first step and a loss that returns to log(256) = 5.55 (docs/methods/dino.md).
    """
    base = midway_tiny()
    return replace(
        base,
        method=replace(DinoConfig.tiny(), teacher_momentum=0.99),
        optim=replace(base.optim, lr=1e-3, clip_norm=3.0),
        run=replace(base.run, folder=Path("runs/synthetic.dino_tiny"), steps=300),
    )


def poodle_tiny() -> Experiment:
    """Small PooDLe on videos of textures, 300 steps, with flow by matching.

    For exact flow, write the videos with it, and give ``--method.flow.source recorded
    --data.gap-seconds 0.2 0.2`` (docs/methods/poodle.md).

    Command: ``midway train synthetic.poodle_tiny --data.root textures``
    Cost: 6 minutes on a CPU core, or 2 with recorded flow.
    Expect: dense and pooled loss that fall from 2 to 0.2 and 0.6 (docs/methods/poodle.md).
    """
    base = midway_tiny()
    return replace(
        base,
        method=replace(
            PoodleConfig.tiny(),
            size=(64, 96),
            frame_area=(1.0, 1.0),
            subcrops=SubcropConfig(count=3, size=(64, 64), area=(0.1, 0.4)),
            # With the paper's momentum the teacher would lag behind in a run this short.
            teacher_momentum=0.97,
        ),
        optim=OptimConfig(
            lr=1e-3,
            scale_lr=False,
            final_lr=0.0,
            warmup_steps=20,
            weight_decay=0.01,
            final_weight_decay=0.01,
            clip="none",
        ),
        run=replace(base.run, folder=Path("runs/synthetic.poodle_tiny"), steps=300),
    )


def mae_tiny() -> Experiment:
    """Small ViT by MAE on videos of `WORLD`, from `write_videos`, 300 steps.

    Command: ``midway train synthetic.mae_tiny --data.root videos``
    Cost: a minute of one CPU core.
    Expect: a loss that falls from 1.5 to 0.94: little of these textures can be predicted
    (docs/methods/mae.md).
    """
    base = midway_tiny()
    return replace(
        base,
        method=MaeConfig.tiny(),
        data=replace(base.data, batch_size=32),
        optim=OptimConfig(
            lr=1.5e-3,
            scale_lr=False,
            final_lr=0.0,
            warmup_epochs=0.0,
            warmup_steps=30,
            betas=(0.9, 0.95),
            weight_decay=0.05,
            final_weight_decay=0.05,
            clip="none",
        ),
        run=replace(base.run, folder=Path("runs/synthetic.mae_tiny"), steps=300, log_every=10),
    )


def ibot_tiny() -> Experiment:
    """Small ViT by iBOT on videos of `WORLD`, from `write_videos`, 300 steps.

    Command: ``midway train synthetic.ibot_tiny --data.root videos``
    Cost: 2 minutes of one CPU core.
    Expect: a class loss that ends at log(256) = 5.5, where nothing is learnt: two crops of a frame
    of these worlds have too little in common (docs/experiments/recognition.md).
    """
    base = midway_tiny()
    return replace(
        base,
        # With the release's momentum the teacher would lag behind in a run this short.
        method=replace(IbotConfig.tiny(), teacher_momentum=0.99),
        data=replace(base.data, batch_size=16),
        optim=OptimConfig(
            lr=1e-3, scale_lr=False, warmup_epochs=0.0, warmup_steps=30, clip="per_tensor"
        ),
        run=replace(base.run, folder=Path("runs/synthetic.ibot_tiny"), steps=300, log_every=10),
    )


def croco_tiny() -> Experiment:
    """Small CroCo on synthetic videos, 300 steps.

    Command: ``midway train synthetic.croco_tiny --data.root textures``
    Cost: a minute on one CPU core.
    Expect: a loss that falls from 1.49 to 0.9; 1 is that of grey patches.
    """
    return _masked_tiny(CrocoConfig.tiny(), "synthetic.croco_tiny")


def videomae_tiny() -> Experiment:
    """Small VideoMAE of four frames on synthetic videos, 300 steps.

    Command: ``midway train synthetic.videomae_tiny --data.root textures``
    Cost: a minute on one CPU core.
    Expect: a loss that falls from 1.24 to 0.99, hardly below that of grey cuboids, 1.
    """
    return _masked_tiny(VideoMaeConfig.tiny(), "synthetic.videomae_tiny")


def _masked_tiny(method: MethodConfig, name: str) -> Experiment:
    base = midway_tiny()
    optim = OptimConfig(
        lr=2e-3,
        scale_lr=False,
        final_lr=0.0,
        warmup_steps=30,
        betas=(0.9, 0.95),
        weight_decay=0.05,
        final_weight_decay=0.05,
        clip="none",
    )
    run = replace(base.run, folder=Path("runs") / name, steps=300)
    return replace(base, method=method, optim=optim, run=run)


def dora_tiny() -> Experiment:
    """DoRA on clips of four frames of the videos of textures, 300 steps.

    Command: ``midway train synthetic.dora_tiny --data.root textures``
    Cost: 30 GFLOP a step, as `camvid.dora_tiny`.
    Expect: a loss that returns to log(256) = 5.55: these worlds measure texture
        (docs/methods/dora.md).
    """
    base = midway_tiny()
    return replace(
        base,
        # With the paper's momentum the teacher would lag behind in a run this short.
        method=replace(DoraConfig.tiny(), teacher_momentum=0.99),
        optim=replace(base.optim, lr=1e-3, clip_norm=3.0),
        run=replace(base.run, folder=Path("runs/synthetic.dora_tiny"), steps=300),
    )


def dynamo_tiny() -> Experiment:
    """DynaMo with its DINO term on pairs of the videos of textures, 300 steps.

    Command: ``midway train synthetic.dynamo_tiny --data.root textures``
    Cost: 24 GFLOP a step, as `camvid.dynamo_tiny`.
    Expect: a DINO term that returns to log(256) = 5.55, and class tokens that nearly collapse
        (docs/methods/dynamo.md).
    """
    base = midway_tiny()
    return replace(
        base,
        # With the paper's momentum the teacher would lag behind in a run this short.
        method=replace(DynamoConfig.tiny(), teacher_momentum=0.99),
        optim=replace(base.optim, lr=1e-3, clip_norm=3.0),
        run=replace(base.run, folder=Path("runs/synthetic.dynamo_tiny"), steps=300),
    )


def dynamo_windows_tiny() -> Experiment:
    """DynaMo in its original form: windows of five frames, SimSiam target, no augmentation.

    Recipe: rate 1e-4 and gradients clipped to 0.1, as in the original. 300 steps on
    videos of textures.

    Command: ``midway train synthetic.dynamo_windows_tiny --data.root textures``
    Cost: 5 s a step on one core that many others used too.
    Expect: class tokens that collapse within 50 steps, with a warning (docs/methods/dynamo.md).
    """
    base, pairs = dynamo_tiny(), DynamoConfig.tiny()
    return replace(
        base,
        method=replace(
            pairs,
            num_frames=5,
            target="student",
            dino_weight=0.0,
            # Without the DINO term, the head is not used: as small as possible.
            head=HeadConfig(hidden=1, bottleneck=1, num_prototypes=1),
            # The whole frame, as far as a square can cover it.
            views=replace(
                pairs.views, motion_area=(1.0, 1.0), aspect=(1.0, 1.0), distort_colours=False
            ),
        ),
        optim=OptimConfig(
            lr=1e-4,
            scale_lr=False,
            warmup_epochs=5,
            weight_decay=0.0,
            final_weight_decay=0.0,
            clip_norm=0.1,
        ),
        run=replace(base.run, folder=Path("runs/synthetic.dynamo_windows_tiny")),
    )
