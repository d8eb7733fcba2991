"""Four short runs on synthetic worlds after which a small network knows how things move.

Each begins from the weights of the one before; docs/MOTION.md says what mattered.
"""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.world import WorldConfig
from midway.data.views.pair_crops import ViewsConfig
from midway.experiments.base import Experiment
from midway.experiments.synthetic import TINY
from midway.methods.midway import MidwayConfig
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

PAN = WorldConfig(
    height=48,
    width=48,
    num_objects=0,
    camera_speed=0.0,
    pan_speed=16.0,
    backdrop="clouds",
    backdrop_periods=(0.17, 0.7),
    saturation=1.0,
    num_frames=16,
    fps=8.0,
)
"""A backdrop that goes to the left or to the right, always as fast: in the gap, by one patch."""
SWAY = replace(PAN, pan_speed=0.0, camera_speed=16.0, camera_reach=(0.4, 0.0))
"""A backdrop that goes to the left and to the right, now faster, now slower."""
DRIFT = replace(SWAY, camera_speed=12.0, camera_reach=(0.3, 0.3))
"""A backdrop that drifts any way."""
THINGS = replace(
    DRIFT,
    num_objects=4,
    object_speed=12.0,
    texture_period_pixels=(12.0, 20.0),
)
"""Objects that go their own ways before it."""

NETWORK = replace(
    TINY,
    encoder=replace(TINY.encoder, image_size=(48, 48), depth=2, sincos_positions=True),
    dynamics=replace(
        TINY.dynamics,
        levels=(1,),
        midway_depth=3,
        forward_depth=2,
        num_latents=1,
        starts_matching=True,
    ),
)


def pan() -> Experiment:
    """The dynamics alone learn that a backdrop goes one patch to either side.

    With two motions to tell apart, motion latents pay at once. With all motions from the start
    they first learn to carry what the target looks like, and stay with it.

    Command: ``python benchmarks/motion.py``, which makes the videos too, and ends this run as soon
    as its loss says that motion has emerged: after 800 to 1,600 steps in six runs.
    Cost: 2 to 4 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    return Experiment(
        method=MidwayConfig(
            network=NETWORK,
            views=ViewsConfig(
                motion_size=(48, 48),
                motion_area=(1.0, 1.0),
                aspect=(1.0, 1.0),
                global_size=(8, 8),
                local_size=(8, 8),
                num_local=0,
                distort_colours=False,
            ),
            dense_over_levels="mean",
            dino_weight=0.0,
            encoder_lr_scale=0.0,
            teacher_momentum=1.0,
            dynamics_weight_decay=0.0,
            clip_dynamics=True,
        ),
        data=ClipsConfig(
            root="motion/pan",
            gap_seconds=(0.5, 0.5),
            starts="random",
            draws_per_clip=4,
            batch_size=32,
            num_workers=1,
        ),
        optim=OptimConfig(
            lr=1e-3,
            scale_lr=False,
            warmup_epochs=0.0,
            warmup_steps=100,
            final_lr=1e-3,
            weight_decay=0.0,
            final_weight_decay=0.0,
            clip_norm=0.5,
        ),
        run=RunConfig(
            folder=Path("runs/motion.pan"),
            steps=3200,
            precision="bf16-mixed",
            accelerator="cpu",
            log_every=20,
        ),
    )


def sway() -> Experiment:
    """The dynamics alone go on with motions of any size along the same line.

    Command: ``python benchmarks/motion.py``.
    Cost: 3 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    return _next(pan(), "sway", steps=1200)


def drift() -> Experiment:
    """The dynamics alone go on with a backdrop that drifts any way.

    Command: ``python benchmarks/motion.py``.
    Cost: 3 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    return _next(sway(), "drift", steps=1500)


def things() -> Experiment:
    """All learn, from objects that go their own ways before the backdrop.

    Command: ``python benchmarks/motion.py``.
    Cost: 6 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    base = _next(drift(), "things", steps=2000)
    assert isinstance(base.method, MidwayConfig)
    return replace(
        base,
        method=replace(
            base.method,
            encoder_lr_scale=0.1,
            teacher_momentum=0.9995,
            final_teacher_momentum=0.9995,
        ),
    )


def _next(before: Experiment, name: str, *, steps: int) -> Experiment:
    """A run like `before` that begins where it ended."""
    return replace(
        before,
        method=replace(before.method, start=str(before.run.folder)),
        optim=replace(before.optim, final_lr=3e-4),
        data=replace(before.data, root=f"motion/{name}"),
        run=replace(before.run, folder=Path(f"runs/motion.{name}"), steps=steps),
    )
