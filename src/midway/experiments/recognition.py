"""Short pretraining on videos of the recognition world, for a CPU.

`benchmarks/recognition_world.py` writes the videos, trains and reads out. Worlds to develop the
world itself, to choose settings and to report numbers have different seeds.
"""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.shape_world import ShapeWorldConfig
from midway.experiments.base import Experiment
from midway.methods.dino import DinoConfig
from midway.methods.midway import MidwayConfig
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

SHAPES = ShapeWorldConfig()
"""Recognition world: classes differ in the arrangement of parts, never in colour or texture."""
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

TINY = MidwayConfig.tiny()
ENCODER = replace(TINY.network.encoder, sincos_positions=True)
"""Four blocks of width 96; positions start as sines and cosines, because shapes need distances."""


def midway_tiny() -> Experiment:
    """Small ViT on videos of shapes, dense term only, 1,500 steps.

    Command: ``midway train recognition.midway_tiny --data.root quickstart/videos``
    Cost: 4 minutes on 2 CPU cores, with ``--run.precision bf16-mixed`` if they support it.
    Expect: not measured yet (docs/RESULTS.md).
    """
    return Experiment(
        method=replace(
            TINY,
            network=replace(TINY.network, encoder=ENCODER),
            dino_weight=0.0,
            # Without the DINO term, its crops are not used: as few and small as possible.
            views=replace(TINY.views, num_local=0, global_size=(8, 8), local_size=(8, 8)),
            # With the paper's momentum the teacher would lag behind in a run this short.
            teacher_momentum=0.95,
        ),
        data=ClipsConfig(
            root="quickstart/videos",
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
            folder=Path("runs/recognition.midway_tiny"),
            steps=1500,
            precision="32-true",
            accelerator="cpu",
            log_every=20,
        ),
    )


def dino_tiny() -> Experiment:
    """Small DINO on pairs of videos of shapes, 600 steps.

    Crops lie anywhere in the frame: they share the classes of a scene, but few objects.

    Command: ``midway train recognition.dino_tiny --data.root quickstart/videos``
    Cost: 3 minutes on 2 CPU cores (estimated).
    Expect: a loss below log(256) = 5.55, and no gain after 400 steps (docs/RESULTS.md).
    """
    base, tiny = midway_tiny(), DinoConfig.tiny()
    views = replace(
        tiny.views, initial_area=(0.6, 1.0), global_area=(0.3, 0.6), local_area=(0.08, 0.25)
    )
    return replace(
        base,
        method=replace(tiny, encoder=ENCODER, views=views, teacher_momentum=0.9995),
        optim=replace(base.optim, lr=1e-3, clip_norm=3.0),
        run=replace(base.run, folder=Path("runs/recognition.dino_tiny"), steps=600),
    )
