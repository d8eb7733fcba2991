"""Schedules of rates and momenta, as pure functions of the progress of a run."""

from math import cos, pi

WARMUP_RATIO = 1e-6
"""Initial factor of the warm-up of the polynomial schedule."""


def cosine(progress: float, start: float, end: float) -> float:
    """Return half a cosine wave from `start` at progress 0 to `end` at progress 1.

    Examples:
        >>> [round(cosine(step / 4, 0.9, 1.0), 4) for step in range(4)]
        [0.9, 0.9146, 0.95, 0.9854]

    """
    return end + 0.5 * (start - end) * (1 + cos(pi * progress))


def warmup_cosine(step: int, steps: int, *, warmup_steps: int, peak: float, final: float) -> float:
    """Return a linear rise from 0 to `peak` over the warm-up, then a cosine down to `final`.

    The warm-up includes both ends, like ``linspace(0, peak, warmup_steps)``: its last step and the
    first step after it are both at the peak. A warm-up longer than the run is cut off.

    Args:
        step: Steps completed before this one, from 0.
        steps: Length of the run.
        warmup_steps: Length of the warm-up; 0 for none, 1 for a single step at rate 0.
        peak: Highest value.
        final: Value at the end of the run, one step after the last.

    """
    if step < warmup_steps:
        # A single warm-up step has rate 0, as linspace(0, peak, 1) does.
        return peak * step / max(warmup_steps - 1, 1)
    return cosine((step - warmup_steps) / (steps - warmup_steps), peak, final)


def warmup_poly(
    step: int, steps: int, *, warmup_steps: int, peak: float, final: float, power: float
) -> float:
    """Decay from `peak` to `final` by a power of the remaining fraction, with a linear warm-up.

    This is the schedule of mmsegmentation's recipes. Their warm-up is a factor, from 1e-6 to 1, on
    the decaying rate, which therefore never quite reaches the peak.

    Args:
        step: Steps completed before this one, from 0.
        steps: Length of the run.
        warmup_steps: Length of the warm-up; 0 for none.
        peak: Value at the beginning, without the warm-up.
        final: Value at the end of the run, one step after the last.
        power: Exponent of the decay; 1 is linear.

    Examples:
        >>> [warmup_poly(s, 4, warmup_steps=0, peak=8, final=0, power=1) for s in range(4)]
        [8.0, 6.0, 4.0, 2.0]

    """
    rate = final + (peak - final) * (1 - step / steps) ** power
    if step >= warmup_steps:
        return rate
    return rate * (WARMUP_RATIO + (1 - WARMUP_RATIO) * step / warmup_steps)
