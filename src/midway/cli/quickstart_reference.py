"""Scores that the quickstart's report shows beside its own, measured by a longer command."""

COMMAND = "python benchmarks/recognition_world.py --worlds report --repetitions 3"
MEASURED = "3 repetitions of 2026-11-30"
REFERENCE: dict[str, tuple[float, float]] = {"trained with labels": (60.2, 65.0)}
"""Mean mIoU in percent of the linear probe and of nearest neighbours, by arm."""
