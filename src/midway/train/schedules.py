"""Rates and momenta as pure functions of how far a run has come."""

from math import cos, pi

WARMUP_RATIO = 1e-6
"""Share of the rate at which a polynomial schedule's warm-up begins."""


def cosine(progress: float, start: float, end: float) -> float:
    """Half a cosine wave from `start` at progress 0 to `end` at progress 1.

    Example:
        >>> [round(cosine(step / 4, 0.9, 1.0), 4) for step in range(4)]
        [0.9, 0.9146, 0.95, 0.9854]

    """
    return end + 0.5 * (start - end) * (1 + cos(pi * progress))


def warmup_cosine(step: int, steps: int, *, warmup_steps: int, peak: float, final: float) -> float:
    """Linear from 0 to `peak` over the warm-up, then half a cosine wave towards `final`.

    The warm-up takes in both its ends, as ``linspace(0, peak, warmup_steps)`` does: its last step
    is at the peak already, and so is the first step after it. A warm-up longer than the run is cut
    off by the run's end.

    Args:
        step: Steps completed before this one, from 0.
        steps: Length of the run.
        warmup_steps: Length of the warm-up; 0 for none, 1 for a single step at rate 0.
        peak: Highest value.
        final: Value at the end of the run, one step after the last.

    """
    if step < warmup_steps:
        return peak * step / max(warmup_steps - 1, 1)
    return cosine((step - warmup_steps) / (steps - warmup_steps), peak, final)


def warmup_poly(
    step: int, steps: int, *, warmup_steps: int, peak: float, final: float, power: float
) -> float:
    """From `peak` to `final` by a power of what is left of the run, times a linear warm-up.

    The rate of mmsegmentation's recipes. Their warm-up begins at a millionth and multiplies the
    falling rate, which therefore never quite reaches the peak.

    Args:
        step: Steps completed before this one, from 0.
        steps: Length of the run.
        warmup_steps: Length of the warm-up; 0 for none.
        peak: Value at the beginning but for the warm-up.
        final: Value at the end of the run, one step after the last.
        power: 1 for a straight line.

    Example:
        >>> [warmup_poly(s, 4, warmup_steps=0, peak=8, final=0, power=1) for s in range(4)]
        [8.0, 6.0, 4.0, 2.0]

    """
    rate = final + (peak - final) * (1 - step / steps) ** power
    if step >= warmup_steps:
        return rate
    return rate * (WARMUP_RATIO + (1 - WARMUP_RATIO) * step / warmup_steps)
