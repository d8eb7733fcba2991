"""Small runs on the synthetic world, for a CPU."""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.world import WorldConfig
from midway.experiments.base import Experiment
from midway.methods.midway import MidwayConfig
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

WORLD = WorldConfig(
    num_objects=5, object_size=(0.5, 0.9), texture_period_pixels=(8.0, 12.0), saturation=0.15
)
"""What the videos of the quickstart show: one large object of each class, told apart by texture,
hardly by colour."""

BOTH_TERMS = MidwayConfig.tiny()
"""The whole objective of the paper on crops of 64 pixels."""
TINY = BOTH_TERMS.network
"""Four blocks of width 96."""


def midway_tiny() -> Experiment:
    """Four blocks of width 96 on 64-pixel crops of synthetic videos, by the dense term alone.

    The videos are those that `midway quickstart` makes. Two crops of a frame of these worlds have
    so little in common that the DINO term stays at the loss of not learning, and the features lose
    by it (docs/RESULTS.md).

    Command: ``midway train synthetic.midway_tiny --data.root quickstart/videos``
    Cost: 4 minutes on 2 CPU cores, with ``--run.precision bf16-mixed`` where they have it.
    Expect: a linear readout 20 points of mIoU above the untrained network (docs/RESULTS.md).
    """
    return Experiment(
        method=replace(
            BOTH_TERMS,
            dino_weight=0.0,
            # Nothing reads the crops of the DINO term.
            views=replace(BOTH_TERMS.views, num_local=0, global_size=(8, 8), local_size=(8, 8)),
            # In a run this short a teacher that follows slowly stays behind.
            teacher_momentum=0.95,
        ),
        data=ClipsConfig(
            root="quickstart/videos",
            # Things move by half a patch: what looks alike in both frames is texture, not place.
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
