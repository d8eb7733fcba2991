"""A small run on real frames or videos, for a CPU."""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.experiments import synthetic
from midway.experiments.base import Experiment


def midway_tiny() -> Experiment:
    """The small network of `synthetic` on CamVid's frames at 1 Hz, 200 steps.

    Any folder of videos does as well. Every frame that has another one half a second to a second
    later is a start.

    Command: ``midway train camvid.midway_tiny --data.root CamVid/train``
    Cost: 2 minutes on 2 CPU cores; 8 for a folder of 720p videos.
    Expect: a loss that falls from 6.4 to 5.8; the run is too short for more.
    """
    base = synthetic.midway_tiny()
    # In few dimensions the first targets, not yet centred, are alike for all crops and easy to
    # meet: the loss would begin low and rise. In many it begins near log(prototypes) and falls.
    head = replace(synthetic.TINY.head, bottleneck=512)
    return replace(
        base,
        method=replace(synthetic.BOTH_TERMS, network=replace(synthetic.TINY, head=head)),
        data=ClipsConfig(
            root="CamVid/train",
            fps=30.0,
            gap_seconds=(0.5, 1.0),
            starts="every_frame",
            batch_size=16,
            num_workers=1,
        ),
        run=replace(base.run, folder=Path("runs/camvid.midway_tiny"), steps=200, log_every=10),
    )
