"""Curricula of short runs in which motion emerges in a small network.

`still`, `moving` and `joined` train a network with a local correlation on any video; `pan`, `sway`,
`drift` and `things` train the paper's network on synthetic worlds. Each run starts from the weights
of the previous one. docs/MOTION.md explains the recipes.
"""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.world import WorldConfig
from midway.data.views.pair_crops import ViewsConfig
from midway.experiments.base import Experiment
from midway.experiments.synthetic import TINY
from midway.methods.midway import MidwayConfig
from midway.models.dino import HeadConfig
from midway.nn.losses.dino import TargetsConfig
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
"""World of stage 1: a backdrop that moves left or right by exactly one patch per gap."""
SWAY = replace(PAN, pan_speed=0.0, camera_speed=16.0, camera_reach=(0.4, 0.0))
"""World of stage 2: a backdrop that moves left and right at varying speed."""
DRIFT = replace(SWAY, camera_speed=12.0, camera_reach=(0.3, 0.3))
"""World of stage 3: a backdrop that drifts in any direction."""
THINGS = replace(
    DRIFT,
    num_objects=4,
    object_speed=12.0,
    texture_period_pixels=(12.0, 20.0),
)
"""World of stage 4: independently moving objects in front of that backdrop."""

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
"""Network of the four stages: two blocks of width 96, one level, one motion latent."""
CORRELATED_NETWORK = replace(
    NETWORK,
    encoder=replace(NETWORK.encoder, image_size=(96, 96), depth=4, whitened_patches=True),
    dynamics=replace(NETWORK.dynamics, correlation_radius=4, forward_depth=3),
    head=HeadConfig.tiny("uniform"),
)
"""Network of `still`, `moving` and `joined`: crops of 12 x 12 patches, each compared with 9 x 9
patches. The dynamics predict the first of its four blocks and also read the last, which the DINO
term trains."""
CROP, REGION, HEIGHT = 96, 112, 128
"""Sides of the motion crop and of the region of displaced crops, for frames of this height."""


def pan() -> Experiment:
    """Stage 1: train the dynamics on a backdrop that moves one patch left or right.

    With only two motions, motion latents reduce the loss early. With all motions from the start,
    latents learn to encode the target's appearance instead.

    Command: ``python benchmarks/motion.py``, which also makes the videos. It ends this stage when
    the loss is below 0.2: after 800 to 1,600 steps in six runs.
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
    """Stage 2: train the dynamics on horizontal motion of any size.

    Command: ``python benchmarks/motion.py``.
    Cost: 3 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    return _next(pan(), "sway", steps=1200)


def drift() -> Experiment:
    """Stage 3: train the dynamics on a backdrop that drifts in any direction.

    Command: ``python benchmarks/motion.py``.
    Cost: 3 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    return _next(sway(), "drift", steps=1500)


def things() -> Experiment:
    """Stage 4: train all parts on worlds with independently moving objects.

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
    """Return the next stage, which starts from the weights of `before`."""
    return replace(
        before,
        method=replace(before.method, start=str(before.run.folder)),
        optim=replace(before.optim, final_lr=3e-4),
        data=replace(before.data, root=f"motion/{name}"),
        run=replace(before.run, folder=Path(f"runs/motion.{name}"), steps=steps),
    )


def still() -> Experiment:
    """Train the dynamics on crops of one frame that are up to two whole patches apart.

    A displacement by whole patches loses no detail, so that fetching a patch is worth more than
    guessing it from its neighbours. Frames wider than about 4:3 are seen in their central square.

    Command: ``midway worlds worlds/photos --num-worlds 240 --height 128 --width 128 --num-frames 16
    --fps 8 --camera-speed 40 --object-speed 28 --camera-reach 0.4 0.4``, then ``midway train
    motion.still``; any other video by ``--data.root``.
    Cost: 7 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    base = pan()
    assert isinstance(base.method, MidwayConfig)
    views = replace(
        base.method.views,
        motion_size=(CROP, CROP),
        motion_area=((REGION / HEIGHT) ** 2, (REGION / HEIGHT) ** 2),
        motion_parts=(CROP // 8, REGION // 8),
    )
    return replace(
        base,
        method=replace(base.method, network=CORRELATED_NETWORK, views=views),
        data=replace(base.data, root="worlds/photos", gap_seconds=(0.0, 0.0), batch_size=16),
        optim=replace(base.optim, warmup_steps=50),
        run=replace(base.run, folder=Path("runs/motion.still"), steps=1000),
    )


def moving() -> Experiment:
    """Train the dynamics on motion between frames, from the weights of `still`.

    Command: ``midway train motion.moving``; any other video by ``--data.root``. Another folder of
    `still` by ``--method.start``.
    Cost: 15 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    before = still()
    assert isinstance(before.method, MidwayConfig)
    area = (CROP / HEIGHT) ** 2
    views = replace(before.method.views, motion_area=(area, area), motion_parts=(1, 1))
    return replace(
        before,
        method=replace(before.method, views=views, start=str(before.run.folder)),
        data=replace(before.data, gap_seconds=(0.5, 0.5), batch_size=12),
        optim=replace(before.optim, final_lr=3e-4),
        run=replace(before.run, folder=Path("runs/motion.moving"), steps=3000),
    )


def joined() -> Experiment:
    """Train the encoder too, by the dense and the DINO term, from the weights of `moving`.

    Command: ``midway train motion.joined``; any other video by ``--data.root``. Another folder of
    `moving` by ``--method.start``.
    Cost: 16 minutes of one CPU core.
    Expect: docs/MOTION.md.
    """
    before = moving()
    assert isinstance(before.method, MidwayConfig)
    views = replace(
        before.method.views,
        motion_area=(0.4, 0.6),
        initial_area=(0.1, 0.4),
        global_size=(48, 48),
        local_size=(48, 48),
        global_area=(0.5, 1.0),
    )
    method = replace(
        before.method,
        views=views,
        start=str(before.run.folder),
        terms="cross",
        dino_weight=1.0,
        encoder_lr_scale=0.3,
        teacher_momentum=0.99,
        momentum_clock="steps",
        # The teacher's head keeps its initial weights, so that targets do not become alike early.
        head_momentum=1.0,
        frozen_last_layer_epochs=0.0,
        targets=TargetsConfig(
            teacher_temperature=0.02,
            initial_teacher_temperature=0.02,
            center_start="first_batch",
        ),
    )
    optim = replace(
        before.optim,
        lr=1e-3,
        final_lr=3e-5,
        weight_decay=0.04,
        final_weight_decay=0.04,
        clip_norm=1.0,
    )
    return replace(
        before,
        method=method,
        data=replace(before.data, gap_seconds=(0.5, 1.0), batch_size=16),
        optim=optim,
        run=replace(before.run, folder=Path("runs/motion.joined"), steps=1500),
    )
