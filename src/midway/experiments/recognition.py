"""Short pretraining on videos of the recognition world, for a CPU.

`benchmarks/recognition_world.py` writes the videos, trains and reads out. Worlds to develop the
world itself, to choose settings and to report numbers have different seeds.
"""

from dataclasses import replace
from pathlib import Path

from midway.data.synthetic.shape_world import ShapeWorldConfig
from midway.experiments import synthetic
from midway.experiments.base import Experiment
from midway.methods.dino import DinoConfig
from midway.methods.midway import MidwayConfig
from midway.models.vit_config import EncoderConfig

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
