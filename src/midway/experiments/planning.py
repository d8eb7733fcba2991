"""Action-conditioned forward model on synthetic walks, for the planner of `midway eval planning`.

Videos of walks with their actions are written by:

    from midway.data.synthetic.walk import write_walks
    from midway.experiments.planning import WALK

    write_walks("walks", WALK, seeds=range(400))
"""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.walk import WalkConfig
from midway.experiments.base import Experiment
from midway.methods.action_conditioned import ActionConditionedConfig
from midway.models.action import ActionNetworkConfig
from midway.models.encoders.vit import EncoderConfig
from midway.models.vit_config import TINY_STD
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

WALK = WalkConfig()
"""Camera that walks over a still picture in steps of up to a patch."""
STEP_SECONDS = 1 / WALK.fps


def walk() -> Experiment:
    """Small forward model on walks, over random features that stay fixed; 2,000 steps.

    Command: ``midway train planning.walk --data.root walks``
    Cost: 4 minutes of one CPU core.
    Expect: docs/LATENTS.md.
    """
    encoder = replace(
        EncoderConfig.tiny(), image_size=(WALK.side, WALK.side), depth=2, sincos_positions=True
    )
    return Experiment(
        method=ActionConditionedConfig(
            network=ActionNetworkConfig(
                encoder=encoder,
                level=2,
                forward_depth=3,
                forward_heads=3,
                init_std=TINY_STD,
                starts_matching=True,
            ),
            num_frames=3,
            # Learnt features become smooth, which leaves little to predict (docs/MOTION.md).
            encoder_lr_scale=0.0,
            teacher_momentum=1.0,
        ),
        data=ClipsConfig(
            root="walks",
            # Exactly a frame: the action of a frame leads to the next one.
            gap_seconds=(STEP_SECONDS, STEP_SECONDS),
            starts="random",
            draws_per_clip=4,
            batch_size=32,
            num_workers=1,
        ),
        optim=OptimConfig(
            lr=1e-3,
            scale_lr=False,
            final_lr=1e-5,
            warmup_steps=100,
            weight_decay=0.0,
            final_weight_decay=0.0,
            clip_norm=0.5,
        ),
        run=RunConfig(
            folder=Path("runs/planning.walk"),
            steps=2000,
            precision="32-true",
            accelerator="cpu",
            log_every=20,
        ),
    )
