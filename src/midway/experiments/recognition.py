"""Short pretraining on videos of the recognition world, for a CPU.

`benchmarks/recognition_world.py` writes the videos, trains and reads out. Worlds to develop the
world itself, to choose settings and to report numbers have different seeds.
"""

from dataclasses import asdict, replace
from pathlib import Path

from midway.data.synthetic.shape_world import ShapeWorldConfig
from midway.data.views.pair_crops import MultiCropConfig, ViewsConfig
from midway.experiments import synthetic
from midway.experiments.base import Experiment
from midway.methods.dino import DinoConfig
from midway.methods.midway import MidwayConfig
from midway.models.dino import HeadConfig
from midway.models.vit_config import EncoderConfig
from midway.nn.losses.dino import TargetsConfig

WORLD = ShapeWorldConfig(
    num_frames=20,
    paint_seconds=0.4,
    texture_contrast=0.2,
    object_tones=(0.65, 0.85),
    backdrop_tones=(0.05, 0.2),
    light_change=0.1,
)
"""Recognition world: classes differ in the arrangement of parts, never in colour or texture. Paint
fades into another within 0.4 s: frames some time apart share shapes but no paint."""
NUM_VIDEOS = 160
"""Number of training videos; a run of seed s has the worlds from s * NUM_VIDEOS."""
LABELLED = range(20_000_000, 20_002_000)
"""Seeds of the worlds of the supervised encoder, which no other run sees."""
PROBE_WORLDS = {
    "develop": (range(10_000_000, 10_000_100), range(11_000_000, 11_000_060)),
    "choose": (range(12_000_000, 12_000_100), range(13_000_000, 13_000_060)),
    "report": (range(14_000_000, 14_000_100), range(15_000_000, 15_000_060)),
}
"""Seeds of the worlds on which readouts are trained and tested: to develop the world, to choose
settings, and to report numbers once."""

ENCODER = replace(EncoderConfig.tiny(), sincos_positions=True)
"""Four blocks of width 96; positions start as sine-cosine waves, because shapes need distances."""
CROPS = MultiCropConfig(
    global_size=(32, 32),
    local_size=(32, 32),
    num_local=0,
    # Windows of 30 to 40 pixels, as large as an object.
    initial_area=(0.08, 0.12),
    global_area=(0.5, 1.0),
    # Paint changes as much as any colour distortion would change it.
    distort_colours=False,
)
"""Crops of the DINO term."""
MOTION_SIZE = (48, 48)
TARGETS = TargetsConfig(
    teacher_temperature=0.02, initial_teacher_temperature=0.02, center_start="first_batch"
)
"""Targets of the DINO term; a higher temperature would make all of them alike."""


def midway_tiny() -> Experiment:
    """Small ViT on videos of shapes, both terms, 600 steps.

    Command: ``midway train recognition.midway_tiny --data.root quickstart/videos``
    Cost: 3 minutes on 2 CPU cores, with ``--run.precision bf16-mixed`` if they support it.
    Expect: a linear readout 1.8 points of mIoU above the untrained network, and k-NN no better
    (docs/RESULTS.md).
    """
    base = synthetic.midway_tiny()
    assert isinstance(base.method, MidwayConfig)
    network = replace(
        base.method.network,
        encoder=replace(ENCODER, image_size=MOTION_SIZE),
        head=HeadConfig.tiny("uniform"),
    )
    views = ViewsConfig(**asdict(CROPS), motion_size=MOTION_SIZE, motion_area=(0.2, 0.35))
    return replace(
        base,
        method=replace(
            base.method,
            network=network,
            views=views,
            dino_weight=1.0,
            # Crops of different frames have shapes in common, those of one frame paint too.
            terms="cross",
            targets=TARGETS,
            teacher_momentum=0.99,
            # A head that follows makes all targets alike before the encoder has learnt anything.
            head_momentum=1.0,
            frozen_last_layer_epochs=0.0,
        ),
        data=replace(
            base.data,
            root="quickstart/videos",
            # Paint has faded into another after twice `paint_seconds`.
            gap_seconds=(0.6, 1.0),
            draws_per_clip=8,
            batch_size=32,
        ),
        optim=replace(base.optim, lr=2e-3, clip_norm=3.0),
        run=replace(base.run, folder=Path("runs/recognition.midway_tiny"), steps=600),
    )


def dino_tiny() -> Experiment:
    """Small DINO on the same windows, 1,200 steps.

    Command: ``midway train recognition.dino_tiny --data.root recognition/videos/0``
    Cost: 0.1 s of one CPU core a step.
    Expect: a loss of 4.2 (log(256) is 5.55), a linear readout 2 points above the untrained
    network, and k-NN no better (docs/RESULTS.md).
    """
    base = midway_tiny()
    assert isinstance(base.method, MidwayConfig)
    method = DinoConfig(
        encoder=replace(ENCODER, image_size=CROPS.global_size),
        head=base.method.network.head,
        views=CROPS,
        terms=base.method.terms,
        targets=TARGETS,
        teacher_momentum=base.method.teacher_momentum,
        head_momentum=base.method.head_momentum,
        frozen_last_layer_epochs=0.0,
    )
    return replace(
        base,
        method=method,
        data=replace(base.data, batch_size=64),
        run=replace(base.run, folder=Path("runs/recognition.dino_tiny"), steps=1200),
    )
