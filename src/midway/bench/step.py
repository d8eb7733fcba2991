"""Benchmark of the training step: throughput, memory and the time of its parts."""

import resource
import sys
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median
from typing import Generic, TypeVar

import numpy as np
import torch

from midway.bench.matrix_peak import matrix_peak
from midway.bench.step_parts import time_parts
from midway.bench.stopwatch import both_clocks, median_seconds, seconds_of
from midway.data.views.render import Clips, render_views, stack_windows
from midway.data.views.spec import cut_regions, draw_views, stack_views
from midway.experiments.bdd100k import midway_vitb, midway_vits
from midway.experiments.camvid import midway_tiny
from midway.methods.base import Method, flops_per_sample
from midway.methods.midway import Midway, MidwayConfig
from midway.nn.compilation import compile_regions, recompute_regions
from midway.progress import progress as progress_of
from midway.train.objective import Progress
from midway.train.optim import AdamW, OptimConfig, Rates, clip_gradients

M = TypeVar("M", bound=Method)
MODELS = {"vits": midway_vits, "vitb": midway_vitb, "tiny": midway_tiny}
OPTIM = OptimConfig(clip="per_tensor")
RATES = Rates(lr=1e-4, weight_decay=0.04)
WARM_UP = 3
"""Untimed first steps, in which memory is allocated and libraries select their kernels."""
_FRAME = (480, 854)
"""Height and width of the frames in pixels."""


class FastStep(Generic[M]):
    """Training step of `midway.train.fit` on views that are already on the device.

    Args:
        method: The method; trained in place.
        autocast_type: Type of the forward pass; None for float32.
    """

    def __init__(self, method: M, autocast_type: torch.dtype | None) -> None:
        self.method = method
        self.autocast_type = autocast_type
        self.groups = method.parameter_groups()
        self.optimizer = AdamW(method, self.groups, OPTIM)

    def step(self, clips: Clips) -> None:
        """Train on the views of a batch, without synchronising the device."""
        dtype, at = self.autocast_type, progress(clips)
        self.method.before_step(at)
        with torch.autocast(clips.seconds.device.type, dtype=dtype, enabled=dtype is not None):
            loss = self.method.loss(clips).loss
        loss.backward()
        self.method.after_backward(at)
        self.optimise(loss)
        self.move_averages(at)

    def optimise(self, loss: torch.Tensor) -> None:
        """Clip the gradients and update the weights."""
        norm = clip_gradients(self.groups, OPTIM)
        self.optimizer.set_rates(RATES)
        self.optimizer.step_unless((~torch.isfinite(loss.detach() + norm)).float())
        self.optimizer.zero_grad()

    @torch.no_grad()
    def move_averages(self, at: Progress) -> None:
        """Update the DINO centre and the EMA teacher."""
        self.method.after_step(at)


@dataclass(frozen=True, kw_only=True)
class StepTimes:
    """Throughput of the step, its peak memory, and the time of its parts."""

    seconds_per_step: float
    cpu_seconds_per_step: float
    """CPU time of the process, summed over its cores."""
    first_step_seconds: float
    """Time of the first warm-up step, which includes compilation."""
    samples_per_second: float
    """Throughput; a sample of Midway is a pair of frames."""
    flops_per_sample: float
    """Operations forward and backward, without outputs that training does not read; including the
    branches that drop path skips on a CPU (about 2.5 %)."""
    flops_per_second: float
    peak_flops_per_second: float
    """Measured peak of a dense matrix product in the same precision."""
    peak_memory_bytes: int
    """Peak memory of the step on a GPU; on a CPU, of the process so far."""
    parts: dict[str, float]
    """Seconds of each part, timed by itself, forward and backward."""

    @property
    def share_of_peak(self) -> float:
        """Throughput divided by that of a matrix product."""
        return self.flops_per_second / self.peak_flops_per_second


@dataclass(frozen=True, kw_only=True)
class StepBenchmark:
    """Configuration of the step benchmark."""

    config: MidwayConfig
    batch_size: int
    """Samples in a step."""
    device: torch.device
    repeats: int
    """Number of timed steps; the result is their median."""
    compile: bool
    """As in `RunConfig`."""
    recompute: bool
    """As in `RunConfig`."""
    announce: Callable[[str], None]
    """Called with a description of the next measurement."""

    def run(self, autocast_type: torch.dtype | None) -> StepTimes:
        """Measure the step with a forward pass in this type; None for float32.

        Raises:
            MidwayError: Compilation is not available.
        """
        self.announce("measuring the peak of matrix products")
        peak = matrix_peak(self.device, autocast_type or torch.float32)
        method = self.method()
        clips, render_seconds = self.clips()
        ours = FastStep(method, autocast_type)
        self.announce("measuring steps")
        _reset_memory(self.device)
        first, wall, cpu = self._alone(lambda: ours.step(clips))
        memory = _peak_memory(self.device)
        self.announce("measuring the parts")
        parts = time_parts(method, clips, autocast_type, repeats=self.repeats)
        flops = flops_per_sample(self.config)
        return StepTimes(
            seconds_per_step=wall,
            cpu_seconds_per_step=cpu,
            first_step_seconds=first,
            samples_per_second=self.batch_size / wall,
            flops_per_sample=flops,
            flops_per_second=flops * self.batch_size / wall,
            peak_flops_per_second=peak,
            peak_memory_bytes=memory,
            parts=parts | self._ends(ours, clips) | {"views": render_seconds},
        )

    def method(self) -> Midway:
        """Build the method with the same initial weights at every call."""
        torch.manual_seed(0)
        method = Midway(self.config).to(self.device)
        if self.compile:
            compile_regions(method)
        if self.recompute:
            recompute_regions(method)
        return method

    def clips(self) -> tuple[Clips, float]:
        """Return views of noise frames, and the seconds that rendering them takes."""
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
        """Return wall-clock seconds of the first step; median wall-clock and CPU seconds."""
        numbers = progress_of(range(WARM_UP + self.repeats), "steps")
        rows = [both_clocks(step, self.device) for _ in numbers]
        wall, cpu = zip(*rows, strict=True)
        return wall[0], median(wall[WARM_UP:]), median(cpu[WARM_UP:])

    def _ends(self, ours: FastStep, clips: Clips) -> dict[str, float]:
        """Measure the optimiser, including gradient clipping, and the moving averages."""
        loss = torch.zeros((), device=self.device)
        optimiser = []
        for _ in range(3):
            for parameter in (p for group in ours.groups for p in group.parameters):
                parameter.grad = torch.full_like(parameter, 1e-6)
            optimiser.append(seconds_of(lambda: ours.optimise(loss), self.device))
        averages = median_seconds(
            lambda: ours.move_averages(progress(clips)), self.device, repeats=3
        )
        return {"optimiser": median(optimiser), "EMA": averages}


def progress(clips: Clips) -> Progress:
    """Return the progress of a run at which no parameters are frozen."""
    return Progress(step=2, steps=10, steps_per_epoch=1.0, samples=len(clips))


def _reset_memory(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
