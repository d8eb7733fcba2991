"""Command ``midway bench``: benchmarks of data loading and of the training step."""

from collections.abc import Sequence
from dataclasses import asdict
from math import inf
from typing import Annotated, Any, Literal

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch.nn import functional as F

from midway.allocator import keep_freed_memory
from midway.bench.data import STAGES, DataBenchmark, LayoutTimes
from midway.bench.plain.network import Attend, attend_written_out
from midway.bench.plain.turns import AgainstTimes, take_turns
from midway.bench.step import MODELS, StepBenchmark, StepTimes
from midway.cli.options import parse
from midway.data.clips.store import StoreConfig, require_store_packages
from midway.data.prepare.measure import Sampling
from midway.errors import MidwayError
from midway.methods.midway import MidwayConfig
from midway.progress import ProgressBar
from midway.train.run import AUTOCAST_TYPES

USAGE = """usage: midway bench data [DIR] [--option value ...] [--json]
       midway bench step [--option value ...] [--json]

data: time of each stage from a file to the views of a pair of frames.
step: time of a training step and its parts, and its share of the machine's peak.
midway bench data --help and midway bench step --help list the options."""
PLAIN_ATTENTION: dict[str, Attend] = {
    "plain": attend_written_out,
    "plain-sdpa": F.scaled_dot_product_attention,
}
"""Attention of the plain step, by value of ``--against``."""
Precision = Literal["bf16-mixed", "32-true"]
NEEDED_PAIRS_PER_SECOND = 1000
"""Training throughput expected of one H200 (not measured)."""


def main(words: Sequence[str]) -> dict[str, Any]:
    """Run a benchmark."""
    benchmarks = {"data": data, "step": step}
    if words and words[0] in benchmarks:
        return parse(benchmarks[words[0]], words[1:], prog=f"midway bench {words[0]}")
    if words and words[0] in ("-h", "--help"):
        print(USAGE)
        raise SystemExit(0)
    raise MidwayError(f"no benchmark; give one: midway bench {' | '.join(benchmarks)}")


def data(
    root: Annotated[str | None, tyro.conf.arg(metavar="[DIR]")] = None,
    /,
    short_sides: tuple[int, ...] = (480, 720),
    batch_size: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    frames: int = 2,
    gap_seconds: float = 4 / 30,
    starts: Literal["random", "keyframes"] = "random",
    seed: int = 0,
) -> dict[str, Any]:
    """Measure each stage from a file to the views of a pair of frames, on one core, by layout.

    Args:
        root: Folder of videos or image sequences; by default, 720p videos are generated.
        short_sides: Shorter sides of the measured frame stores, in pixels.
        batch_size: Pairs rendered at once; by default 8 on a CPU, 128 on a GPU.
        device: Device that renders the views.
        frames: Frames of longer clips to read besides the pairs, such as 16; 2 for pairs only.
        gap_seconds: Time between neighbouring frames of these clips.
        starts: If keyframes, also measure pairs of video frames that start at keyframes
            (--data.starts keyframes), and pairs of two keyframes (--data.targets keyframes).
        seed: Seed of the sampled clips and pairs.

    """
    _check_device(device)
    if batch_size is not None and batch_size < 1:
        raise MidwayError(f"--batch-size {batch_size}: give 1 or more")
    if frames < 2 or not 0 < gap_seconds < inf:
        wrong = f"--frames {frames} --gap-seconds {gap_seconds:g}"
        raise MidwayError(f"{wrong}: give 2 frames or more, and a time above 0")
    for side in short_sides:
        StoreConfig(short_side=side)  # refuses a bad size before anything is measured
    if short_sides:
        require_store_packages("--short-sides")
    with ProgressBar("data") as bar:
        benchmark = DataBenchmark(
            sampling=Sampling(seed=seed),
            clips=Sampling(seed=seed, num_frames=frames, gap_seconds=(gap_seconds, gap_seconds))
            if frames > 2
            else None,
            at_keyframes=starts == "keyframes",
            short_sides=short_sides,
            store=StoreConfig(),
            device=torch.device(device),
            batch_size=batch_size or (8 if device == "cpu" else 128),
            announce=lambda text: bar.update(text=text),
        )
        layouts = benchmark.run(root)
    _print(layouts)
    return {
        "root": root,
        "draws_per_clip": benchmark.sampling.draws_per_clip,
        "batch_size": benchmark.batch_size,
        "device": device,
        "frames": frames,
        "gap_seconds": gap_seconds,
        "starts": starts,
        "layouts": [asdict(each) | {"limit": each.limit} for each in layouts],
    }


def step(
    model: Literal["vits", "vitb", "tiny"] = "vits",
    batch_size: int = 4,
    precision: tuple[Precision, ...] = ("bf16-mixed",),
    device: Literal["cpu", "cuda"] = "cpu",
    against: Literal["nothing", "plain", "plain-sdpa"] = "nothing",
    compile: bool = False,
    recompute: bool = False,
    repeats: int = 5,
) -> dict[str, Any]:
    """Measure a training step and its parts, with the views already on the device.

    Args:
        model: The paper's ViT-S or ViT-B, or the small network of `camvid.midway_tiny`.
        batch_size: Samples (pairs of frames) in a step.
        precision: Precisions to measure, as in `midway train --run.precision`.
        device: Device that trains.
        against: Baseline, timed in alternation with this step: the plain step, or the same with
            torch's attention (sdpa).
        compile: As in `midway train --run.compile`.
        recompute: As in `midway train --run.recompute`.
        repeats: Number of timed steps; the result is their median.

    """
    _check_step(precision, device, {"batch-size": batch_size, "repeats": repeats})
    keep_freed_memory()
    types = {each: AUTOCAST_TYPES.get(each) for each in precision}
    attend = PLAIN_ATTENTION.get(against)
    with ProgressBar("training step") as bar:
        benchmark = StepBenchmark(
            config=_config(model),
            batch_size=batch_size,
            device=torch.device(device),
            compile=compile,
            recompute=recompute,
            repeats=repeats,
            announce=lambda text: bar.update(text=text),
        )
        measured = {name: benchmark.run(each) for name, each in types.items()}
        compared = take_turns(benchmark, types, attend) if attend else None
    hardware = _hardware(device)
    title = f"{model}, {batch_size} samples per step, {device} ({hardware})"
    for name, times in measured.items():
        _print_step(times, f"{title}, {name}", compiled=compile, recomputed=recompute)
    if compared:
        _print_against(compared, device)
    return {
        "model": model,
        "batch_size": batch_size,
        "device": device,
        "compile": compile,
        "recompute": recompute,
        "hardware": hardware,
        "precisions": {name: _to_json(times) for name, times in measured.items()},
        "against": asdict(compared) if compared else None,
    }


def _print(layouts: Sequence[LayoutTimes]) -> None:
    table = Table(
        *("layout", "pairs/s", *STAGES, "views by Pillow"),
        title="pairs/s opened, read and decoded; milliseconds per pair; one core",
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for each in layouts:
        table.add_row(
            each.layout,
            f"{each.pairs_per_second:.1f}",
            *(f"{getattr(each, stage):.2f}" for stage in STAGES),
            "" if each.plain_views is None else f"{each.plain_views:.1f}",
        )
    Console().print(table)
    for each in layouts:
        cores = NEEDED_PAIRS_PER_SECOND / each.pairs_per_second
        print(
            f"{each.layout}: the slowest stage is {each.limit}; {cores:.1f} cores read "
            f"{NEEDED_PAIRS_PER_SECOND} pairs/s"
        )
        if (longer := each.clip_frames_per_second) is not None:
            pairs = 2 * each.pairs_per_second
            print(
                f"{each.layout}: one core reads {longer:.1f} frames/s in clips and {pairs:.1f} in "
                f"pairs ({longer / pairs:.2f} times)"
            )
        if (rates := each.keyframes) is not None:
            print(
                f"{each.layout}: a second of CPU time reads {rates.random:.1f} pairs at random, "
                f"{rates.starts:.1f} that start at keyframes ({rates.starts / rates.random:.2f} "
                f"times), and {rates.both:.1f} of keyframes ({rates.both / rates.random:.2f} times)"
            )


def _hardware(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    return f"{torch.get_num_threads()} threads"


def _config(model: str) -> MidwayConfig:
    config = MODELS[model]().method
    assert isinstance(config, MidwayConfig)
    return config


def _to_json(times: StepTimes) -> dict[str, Any]:
    return asdict(times) | {"share_of_peak": times.share_of_peak}


def _check_step(precision: Sequence[str], device: str, numbers: dict[str, int]) -> None:
    for name, value in numbers.items():
        if value < 1:
            raise MidwayError(f"--{name} {value}: give 1 or more")
    if not precision:
        raise MidwayError("--precision: no value; give one or more of bf16-mixed, 32-true")
    _check_device(device)


def _check_device(device: str) -> None:
    if device == "cuda" and not torch.cuda.is_available():
        raise MidwayError("--device cuda: no GPU that torch can use; leave it out")


def _print_step(times: StepTimes, title: str, *, compiled: bool, recomputed: bool) -> None:
    title += (", compiled" if compiled else "") + (", recomputed" if recomputed else "")
    table = Table("part", "ms a step", "share", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    whole = times.seconds_per_step
    for name, seconds in times.parts.items():
        table.add_row(name, f"{1e3 * seconds:.1f}", f"{seconds / whole:.1%}")
    Console().print(table)
    print(
        f"{1e3 * whole:.1f} ms a step without views, {times.samples_per_second:.3g} samples/s, "
        f"{times.flops_per_second / 1e12:.3g} TFLOP/s: {times.share_of_peak:.0%} of the "
        f"{times.peak_flops_per_second / 1e12:.3g} TFLOP/s of a matrix product; "
        f"peak memory {times.peak_memory_bytes / 2**30:.1f} GiB"
    )
    if compiled:
        print(f"first step, including compilation: {times.first_step_seconds:.0f} s")


def _print_against(compared: AgainstTimes, device: str) -> None:
    for name, agreement in compared.agreements.items():
        print(
            f"{name}, alternating: our step {1e3 * compared.seconds_per_step[name]:.1f} ms, plain "
            f"step {1e3 * compared.plain_seconds_per_step[name]:.1f} ms; relative difference in "
            f"float32: loss {agreement.loss_difference:.1e}, gradients "
            f"{agreement.gradient_difference:.1e}"
        )
    for own, row in compared.ratios.items():
        for other, ratio in row.items():
            line = f"the plain step in {other} takes {ratio:.2f} times as long as ours in {own}"
            if device == "cpu":  # a GPU's host mostly waits, so that its CPU time means little
                line += f" ({compared.cpu_ratios[own][other]:.2f} by CPU time)"
            print(line)
