"""Short pretraining on videos of the recognition world, for a CPU.

`benchmarks/recognition_world.py` writes the videos, trains and reads out. Worlds to develop the
world itself, to choose settings and to report numbers have different seeds.
"""

from dataclasses import replace
from pathlib import Path

from midway.data.synthetic.shape_world import ShapeWorldConfig
from midway.data.views.pair_crops import MultiCropConfig
from midway.experiments import synthetic
from midway.experiments.base import Experiment
from midway.methods.dino import DinoConfig
from midway.methods.midway import MidwayConfig
from midway.models.dino import HeadConfig
from midway.models.vit_config import EncoderConfig
from midway.nn.losses.dino import TargetsConfig

SHAPES = ShapeWorldConfig()
"""Recognition world: classes differ in the arrangement of parts, never in colour or texture."""
FADING = replace(
    SHAPES,
    num_frames=20,
    paint_seconds=0.4,
    texture_contrast=0.2,
    object_tones=(0.65, 0.85),
    backdrop_tones=(0.05, 0.2),
    light_change=0.1,
)
"""The same shapes in paint that fades into another within 0.4 s, under milder light: frames some
time apart have shapes in common, and no paint."""
WORLDS = {"shapes": SHAPES, "fading": FADING}
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


def midway_tiny() -> Experiment:
    """Small ViT on videos of shapes, dense term only, 1,500 steps.

    Command: ``midway train recognition.midway_tiny --data.root quickstart/videos``
    Cost: 4 minutes on 2 CPU cores, with ``--run.precision bf16-mixed`` if they support it.
    Expect: no gain over the untrained network (docs/RESULTS.md).
    """
    base = synthetic.midway_tiny()
    assert isinstance(base.method, MidwayConfig)
    network = replace(base.method.network, encoder=ENCODER)
    return replace(
        base,
        method=replace(base.method, network=network),
        data=replace(base.data, root="quickstart/videos"),
        run=replace(base.run, folder=Path("runs/recognition.midway_tiny")),
    )


def dino_tiny() -> Experiment:
    """Small DINO on pairs of windows as large as an object, 1,200 steps.

    Only crops of different frames are compared, so that they have shapes in common, not paint. The
    teacher's head stays as it starts: one that follows makes all targets alike before the encoder
    has learnt anything.

    `benchmarks/recognition_world.py --world fading` writes the videos.

    Command: ``midway train recognition.dino_tiny --data.root recognition/fading/videos/0``
    Cost: 0.17 s of one CPU core a step.
    Expect: after 500 steps a loss of 4.4 (log(256) is 5.55), a linear readout about 2 points
    above the untrained network, and k-NN no better (docs/RESULTS.md).
    """
    base = midway_tiny()
    method = DinoConfig(
        encoder=replace(ENCODER, image_size=(32, 32)),
        head=HeadConfig.tiny("uniform"),
        views=MultiCropConfig(
            global_size=(32, 32),
            local_size=(32, 32),
            num_local=0,
            # Windows of 30 to 40 pixels.
            initial_area=(0.08, 0.12),
            global_area=(0.5, 1.0),
            # Paint changes as much as any colour distortion would change it.
            distort_colours=False,
        ),
        terms="cross",
        targets=TargetsConfig(
            teacher_temperature=0.02,
            initial_teacher_temperature=0.02,
            center_start="first_batch",
        ),
        teacher_momentum=0.99,
        head_momentum=1.0,
        frozen_last_layer_epochs=0.0,
    )
    return replace(
        base,
        method=method,
        # Paint has faded into another after twice `paint_seconds`.
        data=replace(base.data, gap_seconds=(0.6, 1.0), batch_size=64, draws_per_clip=8),
        optim=replace(base.optim, lr=2e-3, clip_norm=3.0),
        run=replace(base.run, folder=Path("runs/recognition.dino_tiny"), steps=1200),
    )
