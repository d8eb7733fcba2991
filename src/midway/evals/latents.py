"""Motion latents: transfer to another appearance and ablation, measured by the dense loss.

Each synthetic world is rendered twice, with different colours, textures and classes but the same
motion. The forward models predict the target of the first rendering from its source, with latents
of

- `own`: the same pair;
- `alike`: the same pair in the second rendering;
- `other_motion`: a pair of another world;
- `none`: latents of zeros.

Motion information in the latents is independent of the appearance; information that leaks from the
target is not. Latents are exchanged at one level at a time.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from numpy.typing import NDArray
from torch import Tensor

from midway.analysis.inputs import fit
from midway.config import to_json
from midway.data.synthetic.pairs import WorldPairs
from midway.errors import MidwayError, counted
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import NetworkSource, open_network
from midway.nn.eval_mode import evaluating
from midway.nn.losses.dense import normalized_mse
from midway.progress import progress

VERSION = 1
"""Version of the code; increased if it computes different results from the same options."""
LATENTS = ("own", "alike", "other_motion", "none")
"""Sources of the latents."""
LOOK_SEED = 1
"""Seed of the second rendering's appearance."""

DEFAULT_NETWORK = NetworkSource()
DEFAULT_WORLDS = WorldPairs()


def evaluate(
    *,
    network: Annotated[NetworkSource, tyro.conf.OmitArgPrefixes] = DEFAULT_NETWORK,
    worlds: Annotated[WorldPairs, tyro.conf.OmitArgPrefixes] = DEFAULT_WORLDS,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure the dense loss with exchanged latents, by level.

    Args:
        network: Network with motion latents.
        worlds: Rendered pairs, from at least two worlds.
        folder: Folder for results.json; if None, nothing is written.

    Raises:
        MidwayError: The network cannot be read or has no latents, or there is only one world.

    """
    start = time.monotonic()
    opened = open_network(network)
    losses = exchanged_losses(opened.network, worlds)
    settings = to_json(worlds)
    results = complete(
        {
            **settings,
            "network": to_json(network),
            "pairs": worlds.num_worlds * worlds.pairs_per_world,
            "levels": {str(level): summary(each) for level, each in losses.items()},
        },
        protocol="latents",
        version_hash=protocol_version(VERSION, settings),
        weights=weights_of(opened),
        device=next(opened.network.parameters()).device,
        seconds=time.monotonic() - start,
    )
    if folder:
        write_results(folder, results)
    return results


def exchanged_losses(network: MidwayNetwork, worlds: WorldPairs) -> dict[int, dict[str, Tensor]]:
    """Compute the dense loss (eq. 1) of each pair, by level and source of the latents.

    Args:
        network: Network; its mode is restored.
        worlds: Pairs that are rendered.

    Returns:
        For each level, losses of shape (pairs,) for each of `LATENTS` and for `copy`, the baseline
        that predicts the teacher's features of the source.

    Raises:
        MidwayError: The network has no latents, or there is only one world.

    """
    if not network.config.dynamics.latent_dynamics:
        raise MidwayError("network: has no motion latents; take one with latent_dynamics")
    if worlds.num_worlds < 2:
        raise MidwayError("exchange of latents: need two worlds; give --num-worlds 2 or more")
    with evaluating(network):
        own = _outputs(network, worlds, look_seed=None)
        alike = _outputs(network, worlds, look_seed=LOOK_SEED)
        return {
            level: _exchanged(network, level, own[level], alike[level].latents, worlds)
            for level in network.config.dynamics.levels
        }


def summary(losses: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Return mean losses over pairs, `transfer` and `alike_wins`.

    Args:
        losses: Losses of each pair at one level, from `exchanged_losses`.

    Returns:
        - Mean losses by name;
        - `transfer` = (other_motion - alike) / (other_motion - own), the share of the latents'
          benefit that survives the change of appearance: 1 if they contain only motion, 0 if
          nothing transfers, None if there is no benefit;
        - `alike_wins`, the share of pairs with a lower loss for `alike` than for `other_motion`.

    """
    means: dict[str, float | None] = {name: each.mean().item() for name, each in losses.items()}
    benefit = (losses["other_motion"] - losses["own"]).mean().item()
    kept = (losses["other_motion"] - losses["alike"]).mean().item()
    means["transfer"] = kept / benefit if benefit > 0 else None
    means["alike_wins"] = (losses["alike"] < losses["other_motion"]).double().mean().item()
    return means


@dataclass(frozen=True, kw_only=True)
class _Output:
    """Outputs of one level for a batch of pairs."""

    latents: Tensor
    source_backward: Tensor
    target: Tensor
    copied: Tensor
    """The teacher's features of the source."""


def _outputs(
    network: MidwayNetwork, worlds: WorldPairs, *, look_seed: int | None
) -> dict[int, _Output]:
    """Run the network on all pairs, one world per forward pass; return the outputs by level."""
    levels = network.config.dynamics.levels
    found: dict[int, list[_Output]] = {level: [] for level in levels}
    count = worlds.num_worlds * worlds.pairs_per_world
    examples = progress(worlds.examples(look_seed=look_seed), "pairs", count)
    while batch := list(islice(examples, worlds.pairs_per_world)):
        source = _frames(network, [example.source for example in batch])
        target = _frames(network, [example.target for example in batch])
        outputs = network(source, target).levels
        copied = network.teacher.encoder.levels(source, levels)
        for level, copy in zip(levels, copied, strict=True):
            output = outputs[level]
            found[level].append(
                _Output(
                    latents=output.motion_latents,
                    source_backward=output.source_backward,
                    target=output.target,
                    copied=copy,
                )
            )
    return {level: _joined(parts) for level, parts in found.items()}


def _frames(network: MidwayNetwork, images: list[NDArray[np.uint8]]) -> Tensor:
    return fit(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), network).images


def _joined(parts: list[_Output]) -> _Output:
    return _Output(
        **{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(_Output)}
    )


def _exchanged(
    network: MidwayNetwork, level: int, own: _Output, alike: Tensor, worlds: WorldPairs
) -> dict[str, Tensor]:
    """Return the dense losses (pairs,) of one level, by source of the latents."""
    model, dynamics = network.dynamics.forward_models[str(level)], network.dynamics
    given = {
        "own": own.latents,
        "alike": alike,
        # Pairs are ordered by world, so this shifts each pair's latents to the next world.
        "other_motion": own.latents.roll(worlds.pairs_per_world, dims=0),
        "none": torch.zeros_like(own.latents),
    }
    predicted = {
        name: torch.cat(
            [
                model(v, dynamics.raise_latents(m))[0]
                for v, m in zip(
                    own.source_backward.split(worlds.pairs_per_world),
                    latents.split(worlds.pairs_per_world),
                    strict=True,
                )
            ]
        )
        for name, latents in given.items()
    }
    predicted["copy"] = own.copied
    return {
        name: torch.stack(
            [
                normalized_mse(one[None], true[None]).cpu()
                for one, true in zip(each, own.target, strict=True)
            ]
        )
        for name, each in predicted.items()
    }


def report(results: Mapping[str, Any]) -> str:
    """Format results as a table."""
    names = (*LATENTS, "copy", "transfer", "alike_wins")
    lines = [
        f"dense loss of {counted(results['pairs'], 'pair')} by latents",
        f"  {'level':<7}" + "".join(f"{name:>14}" for name in names),
    ]
    for level, scores in results["levels"].items():
        cells = ("-" if scores[name] is None else f"{scores[name]:.4f}" for name in names)
        lines.append(f"  {level:<7}" + "".join(f"{cell:>14}" for cell in cells))
    return "\n".join(lines)
