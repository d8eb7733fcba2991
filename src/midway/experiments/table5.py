"""Table 5 of the paper: ablation of the dynamics' capacity. BDD100K, ViT-S, 100 epochs.

Command: ``midway train table5.double_midway_width --data.root bdd100k/videos/train``, or another
row. The full model is `table3.row6_full`.
Cost: the paper's runs took 24 h on 2 A100 each. Not run here.
Expect (paper): the BDD100K linear mIoU and the Sintel clean EPE in the first line of each row.
"""

from midway.experiments.base import Experiment
from midway.experiments.bdd100k import ablation


def half_midway_width() -> Experiment:
    """Midway path of width 96: 31.3 mIoU, 6.7 EPE (paper)."""
    return ablation("table5.half_midway_width", midway_width=96)


def double_midway_width() -> Experiment:
    """Midway path of width 384: 31.0 mIoU, 3.3 EPE (paper)."""
    return ablation("table5.double_midway_width", midway_width=384)


def midway_depth_1() -> Experiment:
    """One midway block per level: 31.9 mIoU, 6.9 EPE (paper)."""
    return ablation("table5.midway_depth_1", midway_depth=1)


def midway_depth_2() -> Experiment:
    """Two midway blocks per level: 31.2 mIoU, 6.4 EPE (paper)."""
    return ablation("table5.midway_depth_2", midway_depth=2)


def forward_depth_1() -> Experiment:
    """One forward block per level, hence without gates: 29.6 mIoU, 5.0 EPE (paper)."""
    return ablation("table5.forward_depth_1", forward_depth=1)


def forward_depth_2() -> Experiment:
    """Two forward blocks per level: 30.2 mIoU, 4.8 EPE (paper)."""
    return ablation("table5.forward_depth_2", forward_depth=2)
