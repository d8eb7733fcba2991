"""Pretraining on your own video; length, batch and draws follow its hours (`follow_data`)."""

import os
from collections.abc import Collection, Sequence
from dataclasses import replace
from math import ceil, sqrt
from pathlib import Path

from midway.config import require
from midway.cores import usable_cores
from midway.data.clips.find import ClipList
from midway.data.sampling.keyframes import Starts
from midway.data.sampling.samples import ClipsConfig
from midway.experiments import bdd100k, camvid
from midway.experiments.base import Experiment
from midway.methods.midway import MidwayConfig
from midway.train.run import RunConfig

FULL_HOURS = 2.0
"""Hours of video from which a run has its full length. The paper trains on 19 M pairs of one video
of 1.8 h, and on 21 M of 778 h; on less video than the first, samples shrink in proportion."""
EVERY_FRAME_HOURS = 50.0
"""Hours of video up to which every frame is a start, so that long clips count more than short ones.
Beyond, the shuffled order of all frames would take hundreds of megabytes."""
SMALLEST_BATCH = 0.5
"""Smallest batch, as a fraction of the full one."""
MIN_STEPS = 200
"""Smallest number of steps; fewer would show nothing."""
WARM_UP_SHARE = 1 / 30
"""Warm-up as a fraction of the run, as in the paper: 10 of 300 epochs."""
DRAWS = (5, 4, 2, 1)
"""Samples of an opened clip with random starts; the first that suits the batch is taken."""
PROCESSES = 8
"""Processes that can share a batch chosen here."""
LARGEST_EXCESS = 1.15
"""Ratio of that batch to the one aimed at up to which more draws are worth it."""


def midway_vits() -> Experiment:
    """ViT-S on a folder of your videos; two hours or more get the paper's 21 M pairs.

    With less, the number of pairs is proportional to the hours, and the batch falls to 104.
    Options that are given keep their values (docs/OWN_VIDEO.md).

    Command: ``midway train own.midway_vits --data.root DIR``
    Cost: up to 21.0 M pairs, 403.8 GFLOP each; the paper's run took 66 h on 2 A100.
    Expect: not run here; on BDD100K the paper reports 39.7 mIoU with a linear readout.
    """
    base = bdd100k.midway_vits()
    return replace(
        base,
        data=ClipsConfig(starts="every_frame", batch_size=200, max_bad_share=0.05),
        run=replace(
            base.run,
            folder=Path("runs/own.midway_vits"),
            steps=105_000,
            precision="bf16-mixed",
        ),
    )


def midway_tiny() -> Experiment:
    """Small ViT on a folder of your videos, to try all steps on a CPU; 200 to 1,500 steps.

    It shows that your files are read and that training works. Its features are of little use.

    Command: ``midway train own.midway_tiny --data.root DIR``
    Cost: 2 to 25 minutes on 2 CPU cores, 0.12 CPU seconds a sample.
    Expect: a loss that falls from 5.5 to about 4 in 200 steps (docs/OWN_VIDEO.md).
    """
    base = camvid.midway_tiny()
    assert isinstance(base.method, MidwayConfig)
    return replace(
        base,
        # Frames of one camera resemble one another: two crops of a place, distorted in colour,
        # would correlate too little for the DINO term (docs/methods/dino.md).
        method=replace(base.method, views=replace(base.method.views, distort_colours=False)),
        data=replace(base.data, root=ClipsConfig.root, max_bad_share=0.05),
        run=replace(base.run, folder=Path("runs/own.midway_tiny"), steps=1500),
    )


def follow_data(
    experiment: Experiment,
    found: ClipList,
    *,
    base: Experiment | None = None,
    fixed: Collection[str] = (),
) -> Experiment:
    """Return an experiment of this module with starts, draws, batch and length for some clips.

    Args:
        experiment: Experiment to change.
        found: Clips of its data.
        base: Experiment for `FULL_HOURS` of video or more; by default the same one.
        fixed: Fields that keep their values, such as ``run.steps``.

    Raises:
        MidwayError: A length of 0 steps is given.

    """
    base = base or experiment
    data, run, optim = experiment.data, experiment.run, experiment.optim
    scale = min(1.0, found.seconds / 3600 / FULL_HOURS)
    batch, steps, workers = data.batch_size, run.steps, data.num_workers
    starts, choices = _starts(data, found.seconds, fixed)
    if "data.batch_size" in fixed:
        shares = _processes(run)
        draws = next((n for n in choices if batch % (n * shares) == 0), choices[-1])
    else:
        # Steps and batch shrink alike, until the batch is at its smallest.
        size = base.data.batch_size * max(SMALLEST_BATCH, sqrt(scale)) / run.accumulate
        batch, draws = _batch(size, choices)
    if "run.steps" in fixed:
        is_long = steps > 0 or "run.epochs" in fixed
        require("run", {"steps = 0; give 1 or more, or --run.epochs": is_long})
    else:
        samples = base.data.batch_size * base.run.steps * scale
        steps = max(MIN_STEPS, round(samples / (batch * run.accumulate)))
        # A length in epochs would otherwise be ignored.
        steps = 0 if "run.epochs" in fixed else steps
    if not {"optim.warmup_steps", "optim.warmup_epochs"} & {*fixed}:
        # With 0 steps of warm-up, its epochs would count.
        share = max(1, round(steps * WARM_UP_SHARE)) if steps else 0
        optim = replace(optim, warmup_steps=share, warmup_epochs=run.epochs * WARM_UP_SHARE)
    if "data.num_workers" not in fixed and workers > 1:
        # Decoding usually limits a GPU; each training process needs a core for itself.
        workers = max(1, usable_cores() // run.devices - 1)
    return replace(
        experiment,
        data=replace(
            data, starts=starts, draws_per_clip=draws, batch_size=batch, num_workers=workers
        ),
        run=replace(run, steps=steps),
        optim=optim,
    )


def _starts(
    data: ClipsConfig, seconds: float, fixed: Collection[str]
) -> tuple[Starts, tuple[int, ...]]:
    """Choose the start frames, and the numbers of samples that one opening of a clip may give."""
    starts = data.starts
    if "data.starts" not in fixed:
        starts = "random" if seconds > 3600 * EVERY_FRAME_HOURS else "every_frame"
    if "data.draws_per_clip" in fixed:
        return starts, (data.draws_per_clip,)
    return starts, (1,) if starts == "every_frame" else DRAWS


def _batch(size: float, choices: Sequence[int]) -> tuple[int, int]:
    """Return the batch of `size` or more that `PROCESSES` can share, and the draws per clip."""
    units = [PROCESSES * draws for draws in choices]
    batches = [unit * ceil(size / unit) for unit in units]
    largest = max(LARGEST_EXCESS * size, min(batches))
    # More draws first: fewer clips are opened.
    return next((b, n) for b, n in zip(batches, choices, strict=True) if b <= largest)


def _processes(run: RunConfig) -> int:
    """Return the number of processes of a run: that of torchrun or SLURM if they start it."""
    started = (os.environ.get(name, "") for name in ("WORLD_SIZE", "SLURM_NTASKS"))
    return max([run.devices * run.num_nodes, *(int(n) for n in started if n.isdecimal())])
