"""Measure the exchange of gradients between two training processes on this machine.

Command: ``python benchmarks/two_processes.py`` (``--model tiny`` for a quick run). Processes train
data-parallel as `midway train --run.devices 2` does (DDP over gloo), on views in memory. It prints
a JSON line: seconds per step, the exchange that backward does not hide, and its share.
"""

import argparse
import json
import time
from pathlib import Path
from statistics import median

import torch

from midway.bench.step import MODELS, FastStep, progress
from midway.data.views.render import Clips, example_clips
from midway.methods.midway import Midway, MidwayConfig
from midway.train.launch import launch
from midway.train.meter import exposed_seconds
from midway.train.objective import Objective, StepOutput
from midway.train.run import RunConfig


class _Resident(Objective):
    """Objective of a method on rendered clips, which DDP can wrap."""

    def __init__(self, method: Midway) -> None:
        super().__init__()
        self.method = method

    def forward(self, batch: Clips) -> StepOutput:
        return self.method.loss(batch)


def main() -> None:
    """Train a few steps in each process and print their time."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", choices=sorted(MODELS), default="vits")
    parser.add_argument("--batch-size", type=int, default=8, help="samples per process")
    parser.add_argument("--precision", choices=["bf16", "float32"], default="bf16")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1, help="threads per process")
    parser.add_argument("--devices", type=int, default=2, help="number of processes")
    args = parser.parse_args()
    for name in ("batch_size", "steps", "threads", "devices"):
        if getattr(args, name) < 1:
            parser.error(f"--{name.replace('_', '-')} {getattr(args, name)}: give 1 or more")
    # Nothing is written to the folder.
    fabric = launch(RunConfig(folder=Path(), accelerator="cpu", devices=args.devices))
    torch.set_num_threads(args.threads)
    torch.manual_seed(fabric.global_rank)
    config = MODELS[args.model]().method
    assert isinstance(config, MidwayConfig)
    method = Midway(config)
    clips = example_clips(method.spec, args.batch_size)
    model = fabric.setup_module(_Resident(method))
    dtype = torch.bfloat16 if args.precision == "bf16" else None
    step = FastStep(method, dtype)
    times = []
    for _ in range(1 + args.steps):
        fabric.barrier()
        start = time.perf_counter()
        with torch.autocast("cpu", dtype=dtype, enabled=dtype is not None):
            loss = model(clips).loss
        fabric.backward(loss)
        step.optimise(loss)
        step.move_averages(progress(clips))
        times.append(time.perf_counter() - start)
    seconds, exposed = median(times[1:]), exposed_seconds(model._forward_module)
    if fabric.is_global_zero:
        row = {"seconds_per_step": seconds, "exposed_seconds": exposed, "share": exposed / seconds}
        print(json.dumps(vars(args) | row))  # noqa: T201


if __name__ == "__main__":
    main()
