"""Pretraining on one walk through Venice, as in the paper (sections 4.1, B.2)."""

from dataclasses import replace
from pathlib import Path

from midway.data.sampling.samples import ClipsConfig
from midway.experiments import bdd100k
from midway.experiments.base import Experiment


def midway_vits() -> Experiment:
    """ViT-S, 100 epochs: the recipe of `midway-wt-venice-vit-s-ep100.pth`.

    Every frame is a start; the gap is the release's 15 to 30 frames at 30 fps, in seconds. The
    paper's text says 0.5 s: `--data.gap-seconds 0.5 0.5`. A blank end of the file is left out.

    Command: ``midway train walking_tours.midway_vits --data.root walking_tours/venice.mp4``
    Cost: the paper's run took 29 h on 4 RTX A6000.
    Expect (the paper's, table 2): ADE20K UperNet 33.4 mIoU, Sintel clean 5.2 EPE. Not run by us.
    """
    base = bdd100k.midway_vits()
    return replace(
        base,
        data=ClipsConfig(
            root="walking_tours/venice.mp4",
            gap_seconds=(0.5, 1.0),
            starts="every_frame",
            cut_blank_tail=True,
            batch_size=200,
        ),
        run=replace(base.run, epochs=100, folder=Path("runs/walking_tours.midway_vits")),
    )


def midway_vits_300() -> Experiment:
    """ViT-S, 300 epochs: the longer run of table 4.

    Command: ``midway train walking_tours.midway_vits_300 --data.root walking_tours/venice.mp4``
    Cost: three times that of `midway_vits`.
    Expect (the paper's, table 4): ADE20K UperNet 36.9 mIoU, Sintel clean 4.0 EPE. Not run by us.
    """
    base = midway_vits()
    folder = Path("runs/walking_tours.midway_vits_300")
    return replace(base, run=replace(base.run, epochs=300, folder=folder))
