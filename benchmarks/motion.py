"""In which setting motion emerges: four worlds, four runs, and what came of each.

The videos and the runs stay in the folder, and what is there already is not made again. A variant
changes one thing of the setting that works most often.

    python benchmarks/motion.py --folder motion --seed 0
    python benchmarks/motion.py --folder motion --seed 0 --variant deeper-forward --last pan
    python benchmarks/motion.py --folder motion --seed 0 --variant synthetic-tiny

The last alone is a setting of its own, that of the network which comes with the package: motion
emerges in it for one seed of three, and then its heatmaps are the best.
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
"""Dense loss of `pan` that no guess of the mean of both motions reaches (0.45): it ends there."""
STEPS_AT_ONCE, NUM_RECENT = 400, 5
"""Steps of `pan` between two looks at the loss, and logged losses that count."""
"""Exit code of a run that was asked to stop; the same command goes on with it."""
PROBE_TRAIN, PROBE_TEST = range(1_000_000, 1_000_100), range(2_000_000, 2_000_060)
GAP_SECONDS = 0.5


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A run, and the videos that it sees."""

    experiment: Experiment
    videos: str
    """Name of their folder, which stages that show the same share."""
    world: WorldConfig
    num_videos: int
    ends_below: float = 0.0
    """Loss that ends it; 0 if all its steps are done."""


def with_dynamics(experiment: Experiment, **changes: Any) -> Experiment:
    """The same with other dynamics."""
    method = experiment.method
    assert isinstance(method, MidwayConfig)
    dynamics = replace(method.network.dynamics, **changes)
    return replace(
        experiment, method=replace(method, network=replace(method.network, dynamics=dynamics))
    )


def as_shipped(experiment: Experiment, *, steps: int) -> Experiment:
    """The same with three forward blocks, at a rate that falls within so many steps."""
    return replace(
        with_dynamics(experiment, forward_depth=3),
        optim=replace(experiment.optim, final_lr=3e-4),
        run=replace(experiment.run, steps=steps),
    )


PAN, SWAY, DRIFT, THINGS = motion.pan(), motion.sway(), motion.drift(), motion.things()
FAST_DRIFT = replace(motion.DRIFT, camera_speed=20.0)
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
"""Of the network that comes with the package; also what is as above is said."""


def changed(**changes: Any) -> dict[str, Stage]:
    """The stages with other dynamics."""
    return {
        name: replace(stage, experiment=with_dynamics(stage.experiment, **changes))
        for name, stage in STAGES.items()
    }


VARIANTS = {
    "as-is": STAGES,
    "all-at-once": {name: STAGES[name] for name in ("drift", "things")},
    "without-gates": changed(gates=False),
    "published-start": changed(starts_matching=False),
    "deeper-forward": changed(forward_depth=3),
    "synthetic-tiny": SYNTHETIC_TINY,
}
"""Stages of each; `all-at-once` begins with a backdrop that drifts any way."""


def main() -> None:
    """Train, and print one JSON object a stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("motion"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--variant", choices=[*VARIANTS], default="as-is")
    parser.add_argument("--last", choices=[*STAGES], default="things", help="stage to end with")
    options = parser.parse_args()
    runs = options.folder / options.variant / f"seed-{options.seed}"
    for name, stage in VARIANTS[options.variant].items():
        videos = options.folder / "videos" / stage.videos
        if not videos.exists():
            write_videos(videos, stage.world, seeds=range(stage.num_videos))
        run = placed(stage.experiment, videos, runs, options.seed)
        train_until(run, below=stage.ends_below)
        found = {"run": str(run.run.folder), **probed(run.run.folder, stage.world)}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()
        if name == options.last:
            break


def placed(experiment: Experiment, videos: Path, runs: Path, seed: int) -> Experiment:
    """The experiment on these videos, beginning from the run before if there is one."""
    start = runs / Path(experiment.method.start).name
    return replace(
        experiment,
        method=replace(experiment.method, start=str(start) if start.exists() else ""),
        data=replace(experiment.data, root=str(videos)),
        run=replace(experiment.run, folder=runs / experiment.run.folder.name, seed=seed),
    )


def train_until(experiment: Experiment, *, below: float) -> None:
    """Train to the end, or until the loss is found below a limit; go on where a run was stopped."""
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
    """Steps done, and the mean loss of the last that were logged; infinite if one is no number."""
    log = run / "metrics.jsonl"
    rows = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    losses = [inf if row["loss"] is None else row["loss"] for row in rows[-NUM_RECENT:]]
    return (rows[-1]["step"], fmean(losses)) if rows else (0, inf)


def probed(run: Path, world: WorldConfig) -> dict[str, dict[str, float]]:
    """What a linear probe reads of the motion in the world that the run has seen."""
    train_pairs = synthetic_pairs(world, PROBE_TRAIN, GAP_SECONDS, 2)
    test_pairs = synthetic_pairs(world, PROBE_TEST, GAP_SECONDS, 1)
    score = motion_probe(load(run), train_pairs, test_pairs)
    return {"patch_flow": asdict(score.flow), "camera_motion": asdict(score.camera)}


if __name__ == "__main__":
    main()
