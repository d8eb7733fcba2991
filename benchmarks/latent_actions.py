"""Read the actions of walks from motion latents and features, by ridge regression.

    python benchmarks/latent_actions.py --network synthetic-tiny

Each pair is a step of a synthetic walk (`midway.data.synthetic.walk`); test walks show other
pictures. It prints a JSON line for each input of the probe: error in pixels, that of the mean, and
the explained share of the squared error. Fresh weights have the seeds 0 to 2.
"""

import argparse
import json
import sys
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from midway.analysis.inputs import fit
from midway.data.synthetic.walk import Walk, WalkConfig
from midway.evals.probes.motion import fit_ridge, probe_score
from midway.evals.probes.pose import pair_latents, pooled_features
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import NetworkSource, open_network

TRAIN, TEST = range(100), range(1_000_000, 1_000_050)
"""Seeds of the walks."""
FRESH_SEEDS = range(3)


def main() -> None:
    """Fit and score the probes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="synthetic-tiny")
    name = parser.parse_args().network
    train, test = (steps(WalkConfig(), seeds) for seeds in (TRAIN, TEST))
    for label, source in sources(name):
        network = open_network(source).network
        found = [inputs(network, frames) for frames, _ in (train, test)]
        for kind in ("latents", "features"):
            probe = fit_ridge(found[0][kind], train[1])
            score = probe_score(probe(found[1][kind]), test[1], train[1])
            row = {"input": f"{label} {kind}", "epe": score.epe, "epe_mean": score.epe_mean}
            row["explained"] = score.explained
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


def sources(name: str) -> Iterator[tuple[str, NetworkSource]]:
    """Yield the network, and networks of its sizes with fresh weights."""
    yield name, NetworkSource(network=name)
    for seed in FRESH_SEEDS:
        yield f"fresh {seed}", NetworkSource(network=name, untrained=True, weights_seed=seed)


def steps(config: WalkConfig, seeds: range) -> tuple[Tensor, Tensor]:
    """Return the frames of walks (frames, 3, height, width), and all steps in pixels (steps, 2)."""
    frames, actions = [], []
    for seed in seeds:
        walk = Walk(config, seed)
        places, taken = walk.path(config.num_frames)
        frames += [walk.view(place) for place in places]
        actions.append(taken[:-1] * config.longest)
    images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)
    return images, torch.from_numpy(np.concatenate(actions)).double()


def inputs(network: MidwayNetwork, frames: Tensor) -> dict[str, Tensor]:
    """Return the inputs of the probes for the steps of all walks."""
    images, count = fit(frames, network).images, WalkConfig().num_frames
    numbers = torch.arange(len(frames)).view(-1, count)
    first, second = numbers[:, :-1].flatten(), numbers[:, 1:].flatten()
    pooled = pooled_features(network, images)
    return {
        "latents": pair_latents(network, images, first, second),
        "features": torch.cat([pooled[first], pooled[second]], dim=1),
    }


if __name__ == "__main__":
    main()
