"""Timing of view rendering: on one CPU core beside plain per-image code, and on a device."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from statistics import median

import numpy as np
import torch
from numpy.typing import NDArray

from midway.bench.plain.views import plain_views
from midway.data.views.pair_crops import ViewsConfig
from midway.data.views.render import render_views, stack_windows
from midway.data.views.spec import ClipSpec, ViewParameters, cut_regions, draw_views, stack_views
from midway.nn.images import IMAGENET_STD

FramePair = tuple[NDArray[np.uint8], NDArray[np.uint8]]
"""Source and target frame, each of shape (H, W, 3)."""
REPEATS = 10
"""Timed batches, after one for warm-up; results are medians."""


@dataclass(frozen=True, kw_only=True)
class ViewTimes:
    """CPU milliseconds per pair (median over repeats), and difference of the rendered views."""

    draw_ms: float
    """Sampling crops and colours, which both implementations need."""
    cut_ms: float
    """Cutting the regions out of the frames."""
    stack_ms: float
    """Stacking the regions to a batch."""
    render_ms: float
    """Rendering the views of the batch."""
    plain_ms: float
    """Plain implementation, from frames to views without sampling."""
    mean_difference: float
    """Mean absolute difference between the views of both implementations, in levels of 255."""
    worst_difference: float
    """Largest absolute difference, in levels of 255. Pillow rounds to bytes after each operation,
    quantises hue to 256 steps and approximates the blur by three box filters; ours is exact."""

    @property
    def total_ms(self) -> float:
        """Our implementation from frames to views, sampling included."""
        return self.draw_ms + self.cut_ms + self.stack_ms + self.render_ms

    @property
    def ratio(self) -> float:
        """Time of the plain implementation divided by ours, sampling included in both."""
        return (self.draw_ms + self.plain_ms) / self.total_ms


def time_views(
    pairs: Sequence[FramePair],
    config: ViewsConfig | None = None,
    *,
    batch_size: int = 8,
    repeats: int = REPEATS,
) -> ViewTimes:
    """Time both implementations of view rendering alternately, on one thread.

    Each repeat samples new crops and colours; the pairs are reused cyclically.

    Args:
        pairs: Source and target frames of shape (H, W, 3).
        config: Sizes and areas of the crops; the paper's by default.
        batch_size: Pairs per batch.
        repeats: Number of timed batches, after one for warm-up.
    """
    spec = (config or ViewsConfig()).spec()
    rng = np.random.default_rng(0)
    with _one_thread():
        rows = [
            _one_batch([pairs[i % len(pairs)] for i in range(batch_size)], spec, rng)
            for _ in range(repeats + 1)
        ][1:]
    values = {field.name: [getattr(row, field.name) for row in rows] for field in fields(ViewTimes)}
    worst = max(values.pop("worst_difference"))
    return ViewTimes(
        **{name: median(column) for name, column in values.items()}, worst_difference=worst
    )


def time_device_views(
    pairs: Sequence[FramePair], device: torch.device, batch_size: int
) -> tuple[float, float]:
    """Measure transfer to a device and rendering there, in milliseconds per pair.

    Args:
        pairs: Source and target frames of shape (H, W, 3).
        device: An accelerator.
        batch_size: Pairs per batch.
    """
    spec, rng = ViewsConfig().spec(), np.random.default_rng(0)
    transfers, renders = [], []
    for _ in range(REPEATS + 1):
        batch = [pairs[i % len(pairs)] for i in range(batch_size)]
        sizes = [source.shape for source, _ in batch]
        draws = [draw_views(spec, height, width, rng) for height, width, _ in sizes]
        cuts = _cut(spec, draws, batch)
        start = time.perf_counter()
        regions = {name: stack_windows(cut).to(device) for name, cut in cuts.items()}
        torch.accelerator.synchronize()
        moved = time.perf_counter()
        render_views(spec, regions, stack_views(draws))
        torch.accelerator.synchronize()
        transfers.append(1e3 * (moved - start) / batch_size)
        renders.append(1e3 * (time.perf_counter() - moved) / batch_size)
    return median(transfers[1:]), median(renders[1:])


def _one_batch(pairs: Sequence[FramePair], spec: ClipSpec, rng: np.random.Generator) -> ViewTimes:
    clock = _Clock(len(pairs))
    sizes = [source.shape for source, _ in pairs]
    draws = [draw_views(spec, height, width, rng) for height, width, _ in sizes]
    draw_ms = clock.lap()
    cuts = _cut(spec, draws, pairs)
    cut_ms = clock.lap()
    batch = {name: stack_windows(cut) for name, cut in cuts.items()}, stack_views(draws)
    stack_ms = clock.lap()
    views = render_views(spec, *batch)
    render_ms = clock.lap()
    plain = [plain_views(spec, pair, draw) for draw, pair in zip(draws, pairs, strict=True)]
    plain_ms = clock.lap()
    std = torch.tensor(IMAGENET_STD)[:, None, None]
    rendered = [crop for view in views.values() for crop in view.flatten(0, 1)]
    differences = [
        (255 * std * (ours - torch.stack(theirs))).abs()
        for ours, theirs in zip(rendered, zip(*plain, strict=True), strict=True)
    ]
    return ViewTimes(
        draw_ms=draw_ms,
        cut_ms=cut_ms,
        stack_ms=stack_ms,
        render_ms=render_ms,
        plain_ms=plain_ms,
        mean_difference=float(np.mean([float(each.mean()) for each in differences])),
        worst_difference=max(float(each.max()) for each in differences),
    )


def _cut(
    spec: ClipSpec, draws: Sequence[ViewParameters], pairs: Sequence[FramePair]
) -> dict[str, list[NDArray[np.uint8]]]:
    cuts = [cut_regions(spec, draw, pair) for draw, pair in zip(draws, pairs, strict=True)]
    return {name: [cut[name] for cut in cuts] for name in spec.regions}


class _Clock:
    """Clock of CPU milliseconds per pair since its creation or the previous lap.

    CPU time of the process excludes other work on the machine.
    """

    def __init__(self, num_pairs: int) -> None:
        self._num_pairs = num_pairs
        self._since = time.process_time()

    def lap(self) -> float:
        now = time.process_time()
        since, self._since = self._since, now
        return 1e3 * (now - since) / self._num_pairs


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
