"""Make the network in which motion has emerged: four worlds, four runs, and what came of each.

The videos and the runs stay in the folder, and what is there already is not made again.

    python benchmarks/motion.py --folder motion --seed 0
"""

import argparse
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

from midway.data.synthetic import WorldConfig, write_videos
from midway.evals.motion_probe import motion_probe, synthetic_pairs
from midway.experiments import motion
from midway.experiments.base import Experiment, train
from midway.methods.midway import MidwayConfig
from midway.models.weights import load

STAGES = {
    "pan": (motion.pan, motion.PAN, 240),
    "sway": (motion.sway, motion.SWAY, 240),
    "drift": (motion.drift, motion.DRIFT, 480),
    "things": (motion.things, motion.THINGS, 480),
}
"""Experiment, world and number of videos."""
PROBE_TRAIN, PROBE_TEST = range(1_000_000, 1_000_100), range(2_000_000, 2_000_060)
GAP_SECONDS = 0.5


def main() -> None:
    """Train, and print one JSON object a stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("motion"))
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--without-gates", action="store_true")
    options = parser.parse_args()
    runs = options.folder / f"seed-{options.seed}{'-no-gates' * options.without_gates}"
    for name, (experiment, world, num_videos) in STAGES.items():
        videos = options.folder / "videos" / name
        if not videos.exists():
            write_videos(videos, world, seeds=range(num_videos))
        run = placed(experiment(), videos, runs, options.seed)
        if options.without_gates:
            run = ungated(run)
        if not (run.run.folder / "checkpoints").exists():
            train(run)
        found = {"run": str(run.run.folder), **probed(run.run.folder, world)}
        sys.stdout.write(json.dumps(found) + "\n")
        sys.stdout.flush()


def placed(experiment: Experiment, videos: Path, runs: Path, seed: int) -> Experiment:
    """The experiment on these videos, beside the runs that it begins from."""
    start = experiment.method.start and str(runs / Path(experiment.method.start).name)
    return replace(
        experiment,
        method=replace(experiment.method, start=start),
        data=replace(experiment.data, root=str(videos)),
        run=replace(experiment.run, folder=runs / experiment.run.folder.name, seed=seed),
    )


def ungated(experiment: Experiment) -> Experiment:
    """The same without gates in the forward models."""
    method = experiment.method
    assert isinstance(method, MidwayConfig)
    dynamics = replace(method.network.dynamics, gates=False)
    return replace(
        experiment, method=replace(method, network=replace(method.network, dynamics=dynamics))
    )


def probed(run: Path, world: WorldConfig) -> dict[str, dict[str, float]]:
    """What a linear probe reads of the motion in the world that the run has seen."""
    train_pairs = synthetic_pairs(world, PROBE_TRAIN, GAP_SECONDS, 2)
    test_pairs = synthetic_pairs(world, PROBE_TEST, GAP_SECONDS, 1)
    score = motion_probe(load(run), train_pairs, test_pairs)
    return {"patch_flow": asdict(score.flow), "camera_motion": asdict(score.camera)}


if __name__ == "__main__":
    main()
