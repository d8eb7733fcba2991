"""What a training step costs on this machine, part by part."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import numpy as np
import torch

from midway.bench.matrix_peak import matrix_peak
from midway.bench.step_parts import time_parts
from midway.bench.stopwatch import both_clocks, median_seconds, seconds_of
from midway.data.views.render import Clips, render_views, stack_windows
from midway.data.views.spec import cut_regions, draw_views, stack_views
from midway.experiments.bdd100k import midway_vitb, midway_vits
from midway.experiments.camvid import midway_tiny
from midway.methods.base import flops_per_sample
from midway.methods.midway import Midway, MidwayConfig
from midway.nn.compilation import compile_regions, recompute_regions
from midway.train.objective import Progress
from midway.train.optim import AdamW, OptimConfig, Rates, clip_gradients

MODELS = {"vits": midway_vits, "vitb": midway_vitb, "tiny": midway_tiny}
OPTIM = OptimConfig(clip="per_tensor")
RATES = Rates(lr=1e-4, weight_decay=0.04)
WARM_UP = 3
"""Steps that do not count: the allocator finds its places, libraries choose their kernels."""
_FRAME = (480, 854)


class FastStep:
    """The step that `midway.train.fit` takes, on views that are on the device already.

    Args:
        method: Trained in place.
        autocast_type: Of the forward pass; None for float32.
    """

    def __init__(self, method: Midway, autocast_type: torch.dtype | None) -> None:
        self.method = method
        self.autocast_type = autocast_type
        self.groups = method.parameter_groups()
        self.optimizer = AdamW(method, self.groups, OPTIM)

    def step(self, clips: Clips) -> None:
        """Train on the views of a batch, without a word from the device."""
        dtype = self.autocast_type
        with torch.autocast(clips.seconds.device.type, dtype=dtype, enabled=dtype is not None):
            loss = self.method.loss(clips).loss
        loss.backward()
        self.optimise(loss)
        self.move_averages(position(clips))

    def optimise(self, loss: torch.Tensor) -> None:
        """Clip and update."""
        norm = clip_gradients(self.groups, OPTIM)
        self.optimizer.set_rates(RATES)
        self.optimizer.step_unless((~torch.isfinite(loss.detach() + norm)).float())
        self.optimizer.zero_grad()

    @torch.no_grad()
    def move_averages(self, at: Progress) -> None:
        """Let centre and teacher follow."""
        self.method.after_step(at)


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Speed of the step, memory, and seconds of its parts."""

    seconds_per_step: float
    cpu_seconds_per_step: float
    """Time that this process had on all its cores."""
    first_step_seconds: float
    """Of the first step that warms up, in which regions are compiled if they are at all."""
    pairs_per_second: float
    flops_per_pair: float
    """Forward and backward, as computed: what nothing reads is left out, and not counted. What drop
    path leaves out on a CPU (some 2.5 %) is counted."""
    flops_per_second: float
    peak_flops_per_second: float
    """Of a dense matrix product in the same precision, measured before."""
    peak_memory_bytes: int
    """Of the device; on a CPU the most that the process has had so far."""
    parts: dict[str, float]
    """Seconds of each part by itself, forward and backward."""

    @property
    def share_of_peak(self) -> float:
        """Arithmetic of the step by the most that the machine does."""
        return self.flops_per_second / self.peak_flops_per_second


@dataclass(frozen=True, kw_only=True)
class StepBenchmark:
    """Which network, on how many pairs, how, and where."""

    config: MidwayConfig
    batch_size: int
    device: torch.device
    repeats: int
    """Steps that count, of which the median is given."""
    compile: bool
    """As of `RunConfig`, and so is `recompute`."""
    recompute: bool
    tell: Callable[[str], None]
    """Called with what is done next."""

    def run(self, autocast_type: torch.dtype | None) -> StepTimes:
        """Measure, with the forward pass in this type; None for float32.

        Raises:
            MidwayError: Nothing can be compiled.
        """
        self.tell("measuring the peak of matrix products")
        peak = matrix_peak(self.device, autocast_type or torch.float32)
        method = self.method()
        clips, render_seconds = self.clips()
        ours = FastStep(method, autocast_type)
        self.tell("measuring steps")
        _reset_memory(self.device)
        first, wall, cpu = self._alone(lambda: ours.step(clips))
        memory = _peak_memory(self.device)
        self.tell("measuring the parts")
        parts = time_parts(method, clips, autocast_type, repeats=self.repeats)
        flops = flops_per_sample(self.config)
        return StepTimes(
            seconds_per_step=wall,
            cpu_seconds_per_step=cpu,
            first_step_seconds=first,
            pairs_per_second=self.batch_size / wall,
            flops_per_pair=flops,
            flops_per_second=flops * self.batch_size / wall,
            peak_flops_per_second=peak,
            peak_memory_bytes=memory,
            parts=parts | self._ends(ours, clips) | {"views": render_seconds},
        )

    def method(self) -> Midway:
        """The method with its first weights, the same at every call."""
        torch.manual_seed(0)
        method = Midway(self.config).to(self.device)
        if self.compile:
            compile_regions(method)
        if self.recompute:
            recompute_regions(method)
        return method

    def clips(self) -> tuple[Clips, float]:
        """Return views of frames of noise, and the seconds that they take to render."""
        spec, rng = self.config.views.spec(), np.random.default_rng(0)
        frames = list(rng.integers(0, 256, (spec.num_frames, *_FRAME, 3), dtype=np.uint8))
        draws = [draw_views(spec, *_FRAME, rng) for _ in range(self.batch_size)]
        cuts = [cut_regions(spec, draw, frames) for draw in draws]
        regions = {
            name: stack_windows([cut[name] for cut in cuts]).to(self.device)
            for name in spec.regions
        }
        parameters = stack_views(draws)
        views: dict[str, torch.Tensor] = {}

        def render() -> None:
            views.update(render_views(spec, regions, parameters))

        seconds = median_seconds(render, self.device, repeats=2)
        times = torch.zeros(spec.num_frames, self.batch_size, device=self.device)
        return Clips(views=views, seconds=times, signals={}), seconds

    def _alone(self, step: Callable[[], object]) -> tuple[float, float, float]:
        """Seconds of the first step by the wall, medians of the others by it and of the process."""
        rows = [both_clocks(step, self.device) for _ in range(WARM_UP + self.repeats)]
        wall, cpu = zip(*rows, strict=True)
        return wall[0], median(wall[WARM_UP:]), median(cpu[WARM_UP:])

    def _ends(self, ours: FastStep, clips: Clips) -> dict[str, float]:
        """Seconds of the optimiser with clipping, and of the moving averages."""
        loss = torch.zeros((), device=self.device)
        optimiser = []
        for _ in range(3):
            for parameter in (p for group in ours.groups for p in group.parameters):
                parameter.grad = torch.full_like(parameter, 1e-6)
            optimiser.append(seconds_of(lambda: ours.optimise(loss), self.device))
        averages = median_seconds(
            lambda: ours.move_averages(position(clips)), self.device, repeats=3
        )
        return {"optimiser": median(optimiser), "EMA": averages}


def position(clips: Clips) -> Progress:
    """A place in a run at which nothing is frozen."""
    return Progress(step=2, steps=10, steps_per_epoch=1.0, samples=len(clips))


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
