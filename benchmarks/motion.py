"""Train the four stages of `midway.experiments.motion` and probe the motion after each.

Videos and runs are kept in the folder and reused. A variant changes one part of the recipe.

    python benchmarks/motion.py --folder motion --seed 0 --variant displaced
    python benchmarks/motion.py --folder motion --seed 0 --variant correlated
    python benchmarks/motion.py --folder motion --seed 0
    python benchmarks/motion.py --folder motion --seed 0 --variant deeper-forward --last pan
    python benchmarks/motion.py --folder motion --seed 0 --variant synthetic-tiny

`displaced` and `correlated` have two short stages and a network with a local correlation; the first
stage of `displaced` sees crops of still frames. `synthetic-tiny` is the recipe of the packaged
network: motion emerges for one of three seeds.
"""

import argparse
import json
import sys
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path
from statistics import fmean
from typing import Any

from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.errors import INTERRUPTED
from midway.evals.probes.motion import motion_probe, synthetic_pairs
from midway.experiments import motion
from midway.experiments.base import Experiment, train
from midway.methods.midway import MidwayConfig
from midway.models.weights.load import load

EMERGED = 0.2
"""Dense loss at which `pan` and `displaced` end; in `pan`, the mean of both motions has 0.45."""
STEPS_AT_ONCE = 400
"""Steps of these stages between two checks of the loss."""
NUM_RECENT = 5
"""Number of logged losses averaged in a check."""
PROBE_TRAIN, PROBE_TEST = range(1_000_000, 1_000_100), range(2_000_000, 2_000_060)
"""Seeds of the probe's worlds, which are in no training video."""
CROPPED = 64
"""Height and width of worlds that are cropped."""
GAP_SECONDS = 0.5
"""Time between the frames of a pair."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A training run and its videos."""

    experiment: Experiment
    videos: str
    """Name of the videos' folder; stages with the same videos share it."""
    world: WorldConfig
    num_videos: int
    ends_below: float = 0.0
    """Loss at which the stage ends early; 0 to take all steps."""


def midway_of(experiment: Experiment) -> MidwayConfig:
    """Return the method of an experiment, which is Midway in all stages."""
    assert isinstance(experiment.method, MidwayConfig)
    return experiment.method


def with_dynamics(experiment: Experiment, **changes: Any) -> Experiment:
    """Return the experiment with changed fields of the dynamics."""
    method = midway_of(experiment)
    dynamics = replace(method.network.dynamics, **changes)
    return replace(
        experiment, method=replace(method, network=replace(method.network, dynamics=dynamics))
    )


def as_shipped(experiment: Experiment, *, steps: int) -> Experiment:
    """Return the experiment with three forward blocks, and a rate that falls over `steps` steps."""
    return replace(
        with_dynamics(experiment, forward_depth=3),
        optim=replace(experiment.optim, final_lr=3e-4),
        run=replace(experiment.run, steps=steps),
    )


def exchanged(stage: Stage) -> Stage:
    """Return a stage of frames twice as wide, each half predicted with the other's latents."""
    experiment = stage.experiment
    method = midway_of(experiment)
    views = replace(method.views, motion_size=(48, 96), aspect=(2.0, 2.0))
    return replace(
        stage,
        experiment=replace(
            experiment,
            method=replace(method, views=views, exchanged_latents=True),
            data=replace(experiment.data, batch_size=16),
        ),
        videos=f"wide-{stage.videos}",
        world=replace(stage.world, width=96),
    )


def correlated(
    stage: Stage, start: str, *, steps: int, batch_size: int = 16, final_lr: float = 1e-3
) -> Stage:
    """Return a short stage with a local correlation and three forward blocks, encoder frozen."""
    experiment = with_dynamics(stage.experiment, correlation_radius=2, forward_depth=3)
    method = midway_of(experiment)
    experiment = replace(
        experiment,
        method=replace(
            method,
            start=start,
            encoder_lr_scale=0.0,
            teacher_momentum=1.0,
            final_teacher_momentum=1.0,
        ),
        data=replace(experiment.data, batch_size=batch_size),
        optim=replace(experiment.optim, warmup_steps=50, final_lr=final_lr),
        run=replace(experiment.run, steps=steps),
    )
    return replace(
        stage,
        experiment=experiment,
        videos=f"few-{stage.videos}",
        num_videos=240,
        ends_below=0.0,
    )


def cropped(stage: Stage) -> Stage:
    """Return a stage of larger worlds, of which random crops of 48 pixels are seen."""
    method = stage.experiment.method
    assert isinstance(method, MidwayConfig)
    share = (stage.world.height / CROPPED) ** 2
    views = replace(method.views, motion_area=(share, share))
    return replace(
        stage,
        experiment=replace(stage.experiment, method=replace(method, views=views)),
        videos=f"large-{stage.videos}",
        world=replace(stage.world, height=CROPPED, width=CROPPED),
    )


def displaced(stage: Stage) -> Stage:
    """Return a stage of still frames, seen in crops that are up to two whole patches apart."""
    experiment = stage.experiment
    method = midway_of(experiment)
    views = replace(method.views, motion_area=(1.0, 1.0), motion_parts=(6, 8))
    return replace(
        stage,
        experiment=replace(
            experiment,
            method=replace(method, start="", views=views),
            data=replace(experiment.data, gap_seconds=(0.0, 0.0), batch_size=32),
            optim=replace(experiment.optim, final_lr=experiment.optim.lr),
            run=replace(experiment.run, folder=Path("runs/motion.displaced"), steps=3200),
        ),
        ends_below=EMERGED,
    )


def starting_from(stage: Stage, run: str) -> Stage:
    """Return a stage that starts from the weights of another run."""
    experiment = stage.experiment
    method = replace(midway_of(experiment), start=run)
    return replace(stage, experiment=replace(experiment, method=method))


PAN, SWAY, DRIFT, THINGS = motion.pan(), motion.sway(), motion.drift(), motion.things()
FAST_DRIFT = replace(motion.DRIFT, camera_speed=20.0)
"""World of motion above a patch: below it, a forward model can guess a patch from its
neighbours."""
FAST_THINGS = replace(motion.THINGS, camera_speed=20.0, object_speed=16.0)
STAGES = {
    "pan": Stage(
        experiment=PAN, videos="pan", world=motion.PAN, num_videos=600, ends_below=EMERGED
    ),
    "sway": Stage(experiment=SWAY, videos="sway", world=motion.SWAY, num_videos=480),
    "drift": Stage(experiment=DRIFT, videos="drift", world=motion.DRIFT, num_videos=480),
    "things": Stage(experiment=THINGS, videos="things", world=motion.THINGS, num_videos=480),
}
SYNTHETIC_TINY = {
    "pan": Stage(
        experiment=as_shipped(PAN, steps=600),
        videos="few-pan",
        world=motion.PAN,
        num_videos=240,
    ),
    "sway": Stage(
        experiment=as_shipped(SWAY, steps=600),
        videos="few-sway",
        world=motion.SWAY,
        num_videos=240,
    ),
    "drift": Stage(
        experiment=as_shipped(DRIFT, steps=1500),
        videos="fast-drift",
        world=FAST_DRIFT,
        num_videos=480,
    ),
    "things": replace(STAGES["things"], experiment=as_shipped(THINGS, steps=2000)),
}
"""Stages of the packaged network."""


def changed(**changes: Any) -> dict[str, Stage]:
    """Return the stages with changed fields of the dynamics."""
    return {
        name: replace(stage, experiment=with_dynamics(stage.experiment, **changes))
        for name, stage in STAGES.items()
    }


CORRELATED = {
    "pan": correlated(STAGES["pan"], "", steps=400, batch_size=32),
    "things": cropped(
        correlated(
            replace(STAGES["things"], videos="fast-things", world=FAST_THINGS),
            "motion.pan",
            steps=1600,
            final_lr=3e-4,
        )
    ),
}
"""Two stages that a local correlation makes short; the encoder stays frozen."""
DISPLACED = {
    "displaced": displaced(CORRELATED["things"]),
    "things": starting_from(CORRELATED["things"], "motion.displaced"),
}
"""The same worlds in both stages, first as still frames: displacements by whole patches lose no
detail, so that fetching a patch is worth more than guessing it."""
SLOW_CORRELATED = {
    "pan": correlated(STAGES["pan"], "", steps=300, batch_size=12),
    "drift": correlated(STAGES["drift"], "motion.pan", steps=600, batch_size=12),
    "things": correlated(STAGES["things"], "motion.drift", steps=900, batch_size=12, final_lr=3e-4),
}
"""Their first setting: motion below a patch, whose heatmaps do not point to the true place."""
VARIANTS = {
    "as-is": STAGES,
    "displaced": DISPLACED,
    "correlated": CORRELATED,
    "slow-correlated": SLOW_CORRELATED,
    "exchanged": {"pan": exchanged(STAGES["pan"])},
    "all-at-once": {name: STAGES[name] for name in ("drift", "things")},
    "without-gates": changed(gates=False),
    "published-start": changed(starts_matching=False),
    "deeper-forward": changed(forward_depth=3),
    "synthetic-tiny": SYNTHETIC_TINY,
}
"""Stages of each variant; `all-at-once` starts with a backdrop that drifts in any direction, and
`exchanged` has the first stage only, in which a low loss means motion."""


def main() -> None:
    """Train, and print one JSON object per stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("motion"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", choices=[*VARIANTS], default="as-is")
    parser.add_argument(
        "--last", choices=["displaced", *STAGES], default="things", help="last stage to train"
    )
    options = parser.parse_args()
    runs = options.folder / options.variant / f"seed-{options.seed}"
    for name, stage in VARIANTS[options.variant].items():
        videos = options.folder / "videos" / stage.videos
        if not videos.exists():
            write_videos(videos, stage.world, seeds=range(stage.num_videos))
        run = placed(stage.experiment, videos, runs, options.seed)
        train_until(run, below=stage.ends_below)
        # The network sees squares; `exchanged` cuts them out of wider frames.
        world = replace(stage.world, width=stage.world.height)
        found = {"run": str(run.run.folder), **probed(run.run.folder, world)}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        if name == options.last:
            break


def placed(experiment: Experiment, videos: Path, runs: Path, seed: int) -> Experiment:
    """Return the experiment on these videos, starting from the previous run if it exists."""
    before = experiment.method.start
    start = runs / Path(before).name
    return replace(
        experiment,
        method=replace(experiment.method, start=str(start) if before and start.exists() else ""),
        data=replace(experiment.data, root=str(videos)),
        run=replace(experiment.run, folder=runs / experiment.run.folder.name, seed=seed),
    )


def train_until(experiment: Experiment, *, below: float) -> None:
    """Train or resume a run until its last step, or until the loss is below a limit."""
    run, last = experiment.run, experiment.run.steps
    stops = range(STEPS_AT_ONCE, last, STEPS_AT_ONCE) if below else ()
    for steps in (*stops, last):
        done, loss = progress(run.folder)
        if loss < below:
            return
        if done < steps:
            part = replace(experiment, run=replace(run, steps=steps))
            if train(part, resume=(run.folder / "config.json").exists()).interrupted:
                raise SystemExit(INTERRUPTED)


def progress(run: Path) -> tuple[int, float]:
    """Return the steps done, and the mean of the last logged losses; infinite if one is NaN."""
    log = run / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    losses = [inf if row["loss"] is None else row["loss"] for row in rows[-NUM_RECENT:]]
    return (rows[-1]["step"], fmean(losses)) if rows else (0, inf)


def probed(run: Path, world: WorldConfig) -> dict[str, dict[str, float]]:
    """Return the scores of a linear motion probe on new worlds of the run's kind."""
    train_pairs = synthetic_pairs(world, PROBE_TRAIN, GAP_SECONDS, 2)
    test_pairs = synthetic_pairs(world, PROBE_TEST, GAP_SECONDS, 1)
    score = motion_probe(load(run), train_pairs, test_pairs)
    return {"patch_flow": asdict(score.flow), "camera_motion": asdict(score.camera)}


if __name__ == "__main__":
    main()
