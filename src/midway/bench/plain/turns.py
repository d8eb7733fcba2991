"""Our training step and a plain one, in turns, each in each precision."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

import torch

from midway.bench.plain.agreement import Agreement, compare
from midway.bench.plain.network import Attend
from midway.bench.plain.step import PlainStep
from midway.bench.step import OPTIM, RATES, FastStep, StepBenchmark, position
from midway.bench.stopwatch import both_clocks
from midway.data.views.render import Clips
from midway.train.launch import give_freed_memory_back, keep_freed_memory

Ratios = dict[str, dict[str, float]]
"""By the precision of our step, then by that of the plain one."""


@dataclass(frozen=True, kw_only=True)
class AgainstTimes:
    """Steps on the same weights and views, taken in turn."""

    agreements: dict[str, Agreement]
    """By precision."""
    seconds_per_step: dict[str, float]
    """Of our steps."""
    plain_seconds_per_step: dict[str, float]
    ratios: Ratios
    """How many times as long the plain step takes: the median over the turns."""
    cpu_ratios: Ratios
    """The same by the time that the process had on its cores: what else they do is left out."""


def take_turns(
    benchmark: StepBenchmark, precisions: Mapping[str, torch.dtype | None], attend: Attend
) -> AgainstTimes:
    """Check that both steps compute the same, and time them in turns.

    What else the machine does changes by the minute; steps that follow each other see the same.

    Args:
        benchmark: Network, pairs and machine.
        precisions: Types of the forward pass by name; None for float32.
        attend: Attention of the plain step.

    Raises:
        MidwayError: The plain step does not compute the same, or nothing can be compiled.
    """
    clips, _ = benchmark.clips()
    benchmark.tell("comparing with the plain step")
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
        momentum = ours.method.teacher_momentum(position(clips))
        steps["ours"][name] = partial(ours.step, clips)
        steps["plain"][name] = partial(plain.step, clips, momentum)
    benchmark.tell("measuring the plain step in turns with ours")
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

    def seconds(whose: str) -> dict[str, float]:
        return {name: median(turn[whose, name][0] for turn in turns) for name in precisions}

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
    """Seconds by both clocks, by whose step it is and its precision.

    How freed memory is kept is part of our step alone. What the plain one has given back, and
    what ours have kept, is taken and given back by steps that do not count.
    """
    times = {}
    for whose, treat_freed_memory in (
        ("ours", keep_freed_memory),
        ("plain", give_freed_memory_back),
    ):
        treat_freed_memory()
        for step in steps[whose].values():
            step()
        for name, step in steps[whose].items():
            times[whose, name] = both_clocks(step, device)
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
