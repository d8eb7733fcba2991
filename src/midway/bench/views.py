"""What the views of a pair cost on one CPU core, next to plain per-image code."""

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


@dataclass(frozen=True, kw_only=True)
class ViewTimes:
    """CPU milliseconds per pair, the median over the repeats, and how far both ways lie apart."""

    draw_ms: float
    """Choosing crops and colours; part of both ways."""
    cut_ms: float
    """Cutting the windows out of the frames."""
    stack_ms: float
    """Making a batch of the windows."""
    render_ms: float
    """Making the views of the batch."""
    plain_ms: float
    """The plain way from the frames to the views, drawing left out."""
    mean_difference: float
    """Between the views of both ways, in levels of 255."""
    worst_difference: float
    """Of any one value, in levels of 255. Pillow rounds to bytes after every operation, its hue has
    256 steps and its blur is three boxes; ours is exact."""

    @property
    def total_ms(self) -> float:
        """Our way, from frames to views, drawing included."""
        return self.draw_ms + self.cut_ms + self.stack_ms + self.render_ms

    @property
    def ratio(self) -> float:
        """How many times as long the plain way takes, drawing included in both."""
        return (self.draw_ms + self.plain_ms) / self.total_ms


def time_views(
    pairs: Sequence[FramePair],
    config: ViewsConfig | None = None,
    *,
    batch_size: int = 8,
    repeats: int = 10,
    seed: int = 0,
) -> ViewTimes:
    """Time both ways of making the views of some pairs, in turns, on one thread.

    Each repeat draws a new batch, which the pairs fill in turn.

    Args:
        pairs: Source and target frames of shape (H, W, 3).
        config: Sizes and shares of the crops.
        batch_size: Pairs per batch.
        repeats: Batches that count; one more goes before them to warm up.
        seed: Of the crops and colours.
    """
    spec = (config or ViewsConfig()).spec()
    rng = np.random.default_rng(seed)
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
    pairs: Sequence[FramePair],
    device: torch.device,
    config: ViewsConfig | None = None,
    *,
    batch_size: int = 128,
    repeats: int = 10,
    seed: int = 0,
) -> tuple[float, float]:
    """Milliseconds a pair for moving the windows of a batch to a device, and for its views there.

    Args:
        pairs: Source and target frames of shape (H, W, 3).
        device: An accelerator.
        config: Sizes and shares of the crops.
        batch_size: Pairs per batch.
        repeats: Batches that count, of which the median is given.
        seed: Of the crops and colours.
    """
    spec = (config or ViewsConfig()).spec()
    rng = np.random.default_rng(seed)
    transfers, renders = [], []
    for _ in range(repeats + 1):
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
    """CPU milliseconds per pair since it was made, or since the lap before.

    Time of this process on any core: what else the machine does then does not count.
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
