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
from midway.methods.dino import DinoConfig
from midway.methods.midway import MidwayConfig
from midway.methods.poodle import PoodleConfig
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

    Two crops of these worlds have too little in common (a run warns of it), so that the loss
    returns to log(256) = 5.55 (docs/methods/dino.md).

    Command: ``midway train synthetic.dino_tiny --data.root textures``
    Cost: 2 minutes on 2 CPU cores.
    Expect: no gain over the untrained network.
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
    Cost: 4 minutes on 2 CPU cores.
    Expect: dense and pooled loss that fall from 2 (docs/methods/poodle.md).
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
