"""Alternating timing of our training step and the plain one, in each precision."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from midway.allocator import keep_freed_memory, keep_some_freed_memory
from midway.bench.plain.agreement import Agreement, compare
from midway.bench.plain.network import Attend
from midway.bench.plain.step import PlainStep
from midway.bench.step import OPTIM, RATES, FastStep, StepBenchmark, progress
from midway.bench.stopwatch import both_clocks
from midway.data.views.render import Clips

Ratios = dict[str, dict[str, float]]
"""Ratios by the precision of our step, then by that of the plain step."""


@dataclass(frozen=True, kw_only=True)
class AgainstTimes:
    """Times of alternating steps on the same weights and views."""

    agreements: dict[str, Agreement]
    """Comparison of loss and gradients, by precision."""
    seconds_per_step: dict[str, float]
    """Median seconds of our step, by precision."""
    plain_seconds_per_step: dict[str, float]
    """Median seconds of the plain step, by precision."""
    ratios: Ratios
    """Time of the plain step divided by ours; median over the turns."""
    cpu_ratios: Ratios
    """The same ratio of CPU times, which exclude other work on the machine."""


def take_turns(
    benchmark: StepBenchmark, precisions: Mapping[str, torch.dtype | None], attend: Attend
) -> AgainstTimes:
    """Check that both steps compute the same loss and gradients, then time them alternately.

    The load of a machine changes within minutes; consecutive steps see the same load.

    Args:
        benchmark: Network, batch and device.
        precisions: Types of the forward pass by name; None for float32.
        attend: Attention of the plain step.

    Raises:
        MidwayError: Loss or gradients differ, or compilation is not available.
    """
    clips, _ = benchmark.clips()
    benchmark.announce("comparing with the plain step")
    agreements = {
        name: _agreement(benchmark, clips, each, attend) for name, each in precisions.items()
    }
    steps: dict[str, dict[str, Callable[[], object]]] = {"ours": {}, "plain": {}}
    for name, autocast_type in precisions.items():
        ours = FastStep(benchmark.method(), autocast_type)
        plain = PlainStep(
            copy.deepcopy(ours.method),
            lr=RATES.lr,
            clip_norm=OPTIM.clip_norm,
            autocast_type=autocast_type,
            attend=attend,
        )
        momentum = ours.method.config.momenta(progress(clips))[0]
        steps["ours"][name] = partial(ours.step, clips)
        steps["plain"][name] = partial(plain.step, clips, momentum)
    benchmark.announce("measuring our step and the plain step alternately")
    turns = [_turn(steps, benchmark.device) for _ in range(1 + benchmark.repeats)][1:]

    def ratios(clock: int) -> Ratios:
        return {
            own: {
                other: median(
                    turn["plain", other][clock] / turn["ours", own][clock] for turn in turns
                )
                for other in precisions
            }
            for own in precisions
        }

    def seconds(side: str) -> dict[str, float]:
        return {name: median(turn[side, name][0] for turn in turns) for name in precisions}

    return AgainstTimes(
        agreements=agreements,
        seconds_per_step=seconds("ours"),
        plain_seconds_per_step=seconds("plain"),
        ratios=ratios(0),
        cpu_ratios=ratios(1),
    )


def _turn(
    steps: Mapping[str, Mapping[str, Callable[[], object]]], device: torch.device
) -> dict[tuple[str, str], tuple[float, float]]:
    """Return wall-clock and CPU seconds by side ("ours", "plain") and precision.

    Only our step keeps all freed memory. One untimed step of each precision adapts the
    allocator to the setting of a side.
    """
    times = {}
    for side, set_allocator in (("ours", keep_freed_memory), ("plain", keep_some_freed_memory)):
        set_allocator()
        for step in steps[side].values():
            step()
        for name, step in steps[side].items():
            times[side, name] = both_clocks(step, device)
    keep_freed_memory()
    return times


def _agreement(
    benchmark: StepBenchmark, clips: Clips, autocast_type: torch.dtype | None, attend: Attend
) -> Agreement:
    first = {name: view[:, :, :1] for name, view in clips.views.items()}
    one = Clips(views=first, seconds=clips.seconds[:, :1], signals={})
    agreement = compare(benchmark.method(), one, autocast_type, attend)
    agreement.check()
    return agreement
