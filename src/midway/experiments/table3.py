"""Table 3 of the paper: ablation of the components. BDD100K, ViT-S, 100 epochs.

Command: ``midway train table3.row6_full --data.root bdd100k/videos/train``, or another row.
Cost: the paper's runs took 24 h on 2 A100 each. Not run here.
Expect (paper): the BDD100K linear mIoU and the Sintel clean EPE in the first line of each row.

Rows with one level have level 9. Rows 3 and 4 have the marks "latent dynamics" and two of the other
three; the scan of the table does not show which is which, so their numbers may be swapped.

Row 1 has no mark, so that its dense term may be read in two ways: prediction from the source alone,
as here, or none, with ``--method.dense-weight 0``.
"""

from midway.experiments.base import Experiment
from midway.experiments.bdd100k import ablation

_ONE_LEVEL = (9,)


def row1_base() -> Experiment:
    """Forward prediction from the source alone: 28.3 mIoU, 6.2 EPE (paper)."""
    return ablation(
        "table3.row1_base",
        levels=_ONE_LEVEL,
        latent_dynamics=False,
        backward_layers=False,
        refinement=False,
        gates=False,
    )


def row2_latent_dynamics() -> Experiment:
    """Motion latents added: 30.4 mIoU, 4.4 EPE (paper)."""
    return ablation(
        "table3.row2_latent_dynamics",
        levels=_ONE_LEVEL,
        backward_layers=False,
        refinement=False,
        gates=False,
    )


def row3_backward_multi_level() -> Experiment:
    """Backward layers and three levels added: 30.0 mIoU, 5.0 EPE, or those of row 4 (paper)."""
    return ablation("table3.row3_backward_multi_level", refinement=False, gates=False)


def row4_multi_level_refinement() -> Experiment:
    """Three levels and refinement added: 30.4 mIoU, 5.2 EPE, or those of row 3 (paper)."""
    return ablation("table3.row4_multi_level_refinement", backward_layers=False, gates=False)


def row5_no_gating() -> Experiment:
    """All but the gates: 31.1 mIoU, 3.9 EPE (paper)."""
    return ablation("table3.row5_no_gating", gates=False)


def row6_full() -> Experiment:
    """The full model: 31.5 mIoU, 4.1 EPE (paper; 5 seeds: +-0.06 mIoU, +-0.08 EPE)."""
    return ablation("table3.row6_full")


def row7_no_backward() -> Experiment:
    """No backward layers: 30.4 mIoU, 3.7 EPE (paper)."""
    return ablation("table3.row7_no_backward", backward_layers=False)


def row8_no_multi_level() -> Experiment:
    """The top objective level alone: 30.3 mIoU, 5.2 EPE (paper)."""
    return ablation("table3.row8_no_multi_level", levels=_ONE_LEVEL)


def row9_no_refinement() -> Experiment:
    """No refinement: 30.8 mIoU, 5.1 EPE (paper)."""
    return ablation("table3.row9_no_refinement", refinement=False)
