"""Compare the test of motion latents without labels to ground truth, on good and bad networks.

Each network is scored on videos that no run has seen: by the exchange of latents between halves of
frames (`midway eval latents --data.root`), which needs no labels, by the exchange with another
rendering of the world, and by the linear motion probe beside that of fresh weights. Runs, videos
and scores are kept in the folder of `benchmarks/motion.py` and reused.

    python benchmarks/latent_detector.py --folder motion --seeds 100 101       # choose THRESHOLD
    python benchmarks/latent_detector.py --folder motion --seeds 0 1 2 3 4
"""

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from statistics import fmean
from typing import Any

from motion import (
    CORRELATED,
    FAST_DRIFT,
    GAP_SECONDS,
    STAGES,
    VARIANTS,
    Stage,
    correlated,
    placed,
    train_until,
)
from torch import Tensor

from midway.data.synthetic.pairs import WorldPairs
from midway.data.synthetic.write import write_videos
from midway.data.video.writer import writing_video
from midway.evals.latents import exchanged_losses, summary
from midway.evals.probes.exchange import HalvesConfig, half_losses
from midway.evals.probes.motion import motion_probe, synthetic_pairs
from midway.evals.probes.planner import wilson
from midway.experiments import motion
from midway.models.weights.sources import NetworkSource, open_network

THRESHOLD = 0.02
"""Smallest `motion_gain` of halves that the test calls motion."""
TRANSFER = 0.5
"""Smallest share of the latents' benefit that survives a new rendering, of a good network."""
BENEFIT = 0.02
"""Smallest relative fall of the loss by a pair's own latents, of a good network."""
EXPLAINED = 0.05
"""Smallest gain over fresh weights in the explained motion, the mean of camera and patches, of a
good network by the probe."""
NEW_VIDEOS = range(900_000, 900_064)
PROBE_TRAIN, PROBE_TEST = range(1_000_000, 1_000_050), range(2_000_000, 2_000_030)
BLOTS = replace(FAST_DRIFT, backdrop="blots")
"""World whose two halves share their four colours."""
WORLDS = {"pan": motion.PAN, "drift": FAST_DRIFT, "blots": BLOTS}
"""Worlds of the scores: those of the run's first stage, or a drift in any direction."""
SHUFFLED = "shuffled-"
"""Start of the names of videos in which every frame shows another world, so that there is no motion
to find."""


def shortened(stage: Stage, *, steps: int, **data: Any) -> Stage:
    """Return a stage of fewer steps from fresh weights, with changed options of the data."""
    experiment = stage.experiment
    return replace(
        stage,
        experiment=replace(
            experiment,
            method=replace(experiment.method, start=""),
            data=replace(experiment.data, num_workers=0, **data),
            run=replace(experiment.run, steps=steps),
        ),
        ends_below=0.0,
    )


PAN = CORRELATED["pan"]
DRIFT = correlated(
    replace(STAGES["drift"], videos="fast-drift", world=FAST_DRIFT), "", steps=400, final_lr=3e-4
)
PUBLISHED = VARIANTS["published-start"]["pan"]
UNRELATED = replace(
    VARIANTS["deeper-forward"]["drift"], videos=f"{SHUFFLED}drift", world=FAST_DRIFT, num_videos=240
)
UNRELATED_BLOTS = replace(UNRELATED, videos=f"{SHUFFLED}blots", world=BLOTS)
SHORT: dict[str, tuple[Stage, str]] = {
    "correlated-100": (shortened(PAN, steps=100), "pan"),
    "same-frame": (shortened(DRIFT, steps=100, gap_seconds=(0.0, 0.0)), "drift"),
    "shuffled": (shortened(replace(DRIFT, videos=f"{SHUFFLED}drift"), steps=250), "drift"),
    "shuffled-1200": (shortened(UNRELATED, steps=1200), "drift"),
    "shuffled-blots-600": (shortened(UNRELATED_BLOTS, steps=600), "blots"),
    "plain-100": (shortened(STAGES["pan"], steps=100), "pan"),
    "published-start-100": (shortened(PUBLISHED, steps=100), "pan"),
}
"""Runs of one short stage and their worlds; most find no motion. Latents of `shuffled-1200`
say which target it is, those of `shuffled-blots-600` say which colours it has."""
UNTRAINED = {"untrained-correlated": "same-frame", "untrained-plain": "plain-100"}
"""Fresh weights of the sizes of a short run."""
CHAINS = {
    f"{variant}-{stage}": (variant, stage)
    for variant in ("correlated", "slow-correlated")
    for stage in VARIANTS[variant]
} | {f"{variant}-pan": (variant, "pan") for variant in ("as-is", "deeper-forward")}
"""Stages of a whole recipe, each of which starts from the one before. Without correlation the first
one can end as a fingerprint with as low a loss as with motion."""


def main() -> None:
    """Train and score, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=Path("motion"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--kinds", nargs="+", default=[*CHAINS, *SHORT, *UNTRAINED])
    options = parser.parse_args()
    rows = []
    for kind in options.kinds:
        for seed in options.seeds:
            rows.append(scored(options.folder, kind, seed))
            sys.stdout.write(json.dumps(rows[-1]) + "\n")
            sys.stdout.flush()
    for truth in ("transfers", "probe_gains"):
        judged = [row for row in rows if row[truth] is not None]
        agreed = sum(row["detected"] == row[truth] for row in judged)
        low, high = wilson(agreed, len(judged))
        good = sum(row[truth] for row in judged)
        sys.stdout.write(
            f"{truth}: agrees in {agreed} of {len(judged)} ({low:.2f} to {high:.2f}), {good} good\n"
        )


def scored(folder: Path, kind: str, seed: int) -> dict[str, Any]:
    """Train a network if necessary, and return its scores, which are kept beside it."""
    kept = folder / "detector" / kind / f"seed-{seed}.json"
    # Scores from before the reversed control have another `gain`.
    if not kept.exists() or "gain_over_other_pair" not in json.loads(kept.read_text()):
        network, world = network_of(folder, kind, seed)
        measures = measured(folder, network, world, seed)
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(json.dumps(measures))
    return {"kind": kind, "seed": seed, **verdicts(json.loads(kept.read_text()))}


def verdicts(measures: dict[str, Any]) -> dict[str, Any]:
    """Return the measures with the verdict of the test and those by ground truth."""
    fresh = [measures[f"{name}_untrained"] for name in ("camera", "patches")]
    gained = fmean([measures["camera"], measures["patches"]]) - fmean(fresh)
    return {
        **measures,
        "detected": measures["gain"] >= THRESHOLD,
        "transfers": measures["benefit"] >= BENEFIT and measures["transfer"] >= TRANSFER,
        # No verdict where fresh weights leave nothing to gain.
        "probe_gains": gained >= EXPLAINED if max(fresh) < 1 - EXPLAINED else None,
    }


def network_of(folder: Path, kind: str, seed: int) -> tuple[NetworkSource, str]:
    """Return a network, trained if its run is incomplete, and the name of its world."""
    if kind in CHAINS:
        variant, last = CHAINS[kind]
        runs, stages, name = folder / variant / f"seed-{seed}", VARIANTS[variant], ""
        for stage in [*stages][: [*stages].index(last) + 1]:
            name = trained(folder, stages[stage], runs, seed)
        return NetworkSource(network=name), "pan" if last == "pan" else "drift"
    run = UNTRAINED.get(kind, kind)
    stage, world = SHORT[run]
    name = trained(folder, stage, folder / "detector" / run / f"seed-{seed}", seed)
    return NetworkSource(network=name, untrained=kind in UNTRAINED, weights_seed=seed), world


def trained(folder: Path, stage: Stage, runs: Path, seed: int) -> str:
    """Train a stage, and return the folder of its run."""
    run = placed(stage.experiment, videos_of(folder, stage), runs, seed)
    train_until(run, below=stage.ends_below)
    return str(run.run.folder)


def videos_of(folder: Path, stage: Stage) -> Path:
    """Return the folder of a stage's videos, which are written if missing."""
    videos = folder / "videos" / stage.videos
    if not videos.exists() and stage.videos.startswith(SHUFFLED):
        write_shuffled(videos, stage, seeds=range(stage.num_videos))
    elif not videos.exists():
        write_videos(videos, stage.world, seeds=range(stage.num_videos))
    return videos


def write_shuffled(folder: Path, stage: Stage, *, seeds: Iterable[int]) -> None:
    """Write videos whose frames show worlds of different seeds."""
    folder.mkdir(parents=True)
    world = stage.world
    for seed in seeds:
        with writing_video(folder / f"world_{seed:04d}.mp4", world.fps) as write:
            for frame in range(world.num_frames):
                write(world.build(world.num_frames * seed + frame).frame(0.0).image)


def measured(folder: Path, source: NetworkSource, name: str, seed: int) -> dict[str, float]:
    """Return the measures of a network on new worlds of a name in `WORLDS`."""
    world = WORLDS[name]
    videos = folder / "videos" / f"new-wide-{name}"
    if not videos.exists():
        write_videos(videos, replace(world, width=2 * world.width), seeds=NEW_VIDEOS)
    network = open_network(source).network
    level = network.config.dynamics.levels[-1]
    halves = half_losses(network, HalvesConfig(root=str(videos)))[level]
    rendered = exchanged_losses(network, WorldPairs(world=world, num_worlds=24))[level]
    train_pairs = synthetic_pairs(world, PROBE_TRAIN, GAP_SECONDS, 2)
    test_pairs = synthetic_pairs(world, PROBE_TEST, GAP_SECONDS, 1)
    fresh = open_network(replace(source, untrained=True, weights_seed=seed)).network
    probes = [motion_probe(each, train_pairs, test_pairs) for each in (network, fresh)]
    return {
        "gain": summary(halves)["motion_gain"] or 0.0,
        "gain_over_other_pair": fall(halves, "alike"),
        "benefit": fall(rendered, "own"),
        "transfer": summary(rendered)["transfer"] or 0.0,
        "camera": probes[0].camera.explained,
        "camera_untrained": probes[1].camera.explained,
        "patches": probes[0].flow.explained,
        "patches_untrained": probes[1].flow.explained,
    }


def fall(losses: Mapping[str, Tensor], latents: str) -> float:
    """Return the relative fall of the mean loss by latents, from that with another motion."""
    return 1 - (losses[latents].mean() / losses["other_motion"].mean()).item()


if __name__ == "__main__":
    main()
