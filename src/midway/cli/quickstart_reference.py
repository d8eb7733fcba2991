"""Scores that the quickstart's report shows beside its own, measured by a longer command."""

COMMAND = "python benchmarks/recognition_world.py --worlds report --repetitions 3"
MEASURED = "3 repetitions of 2026-11-30"
REFERENCE: dict[str, tuple[float, float]] = {
    "pretrained on pairs 0 s apart": (15.2, 15.3),
    "pretrained on pairs 0.6 to 1 s apart": (16.1, 15.7),
    "trained with labels": (60.8, 65.0),
}
"""Mean mIoU in percent of the linear probe and of nearest neighbours, by arm."""
