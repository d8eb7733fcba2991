"""Whether motion latents hold motion or leak the target: transfer to other looks, and knock-out.

Each synthetic world is made twice, with other colours, textures and classes but the same motion.
The forward models predict the target of the first, from its own source, with the latents of

- `own`: this pair;
- `alike`: the pair of the second that moves alike and looks different;
- `other_motion`: a pair of another world;
- `none`: latents of zeros.

What the latents carry of the motion survives the change of looks, what they leak of the target does
not. Latents are exchanged at one level at a time.
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
from midway.errors import MidwayError
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import NetworkSource, open_network
from midway.nn.dense import normalized_mse
from midway.nn.eval_mode import evaluating

VERSION = 1
"""Raised when the code makes something else of the same options."""
LATENTS = ("own", "alike", "other_motion", "none")
LOOK_SEED = 1
"""Of the other looks."""

DEFAULT_NETWORK = NetworkSource()
DEFAULT_WORLDS = WorldPairs()


def evaluate(
    *,
    network: Annotated[NetworkSource, tyro.conf.OmitArgPrefixes] = DEFAULT_NETWORK,
    worlds: Annotated[WorldPairs, tyro.conf.OmitArgPrefixes] = DEFAULT_WORLDS,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Dense loss with exchanged latents, by level.

    Args:
        network: Which network.
        worlds: Pairs that are made; at least two worlds.
        folder: For results.json; nothing is written without.

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
    """Dense loss (eq. 1) of each pair at each level, by whose latents the forward model has.

    Args:
        network: Its mode is restored.
        worlds: Pairs that are made.

    Returns:
        By `LATENTS`, and `copy`: the guess that the target has the features that the teacher has of
        the source. Each of shape (pairs,).

    Raises:
        MidwayError: The network has no latents, or there is only one world.

    """
    if not network.config.dynamics.latent_dynamics:
        raise MidwayError("the network has no motion latents; take one with latent_dynamics")
    if worlds.num_worlds < 2:
        raise MidwayError("latents of other motion need another world; give --num-worlds 2 or more")
    with evaluating(network):
        own = _seen(network, worlds, look_seed=None)
        alike = _seen(network, worlds, look_seed=LOOK_SEED)
        return {
            level: _exchanged(network, level, own[level], alike[level].latents, worlds)
            for level in network.config.dynamics.levels
        }


def summary(losses: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Means over pairs, and what they say of the latents.

    Args:
        losses: Of each pair, as `exchanged_losses` gives them for a level.

    Returns:
        Mean losses; `transfer`: the share of what latents are worth, against those of another
        motion, that survives other looks (1: they hold motion alone, 0: nothing of it survives;
        None where they are worth nothing); `alike_wins`: the share of pairs that latents of the
        same motion predict better than those of another.

    """
    means: dict[str, float | None] = {name: each.mean().item() for name, each in losses.items()}
    worth = (losses["other_motion"] - losses["own"]).mean().item()
    kept = (losses["other_motion"] - losses["alike"]).mean().item()
    means["transfer"] = kept / worth if worth > 0 else None
    means["alike_wins"] = (losses["alike"] < losses["other_motion"]).double().mean().item()
    return means


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """What a level says of some pairs."""

    latents: Tensor
    source_backward: Tensor
    target: Tensor
    copied: Tensor
    """What the teacher sees in the source."""


def _seen(network: MidwayNetwork, worlds: WorldPairs, *, look_seed: int | None) -> dict[int, _Seen]:
    levels = network.config.dynamics.levels
    found: dict[int, list[_Seen]] = {level: [] for level in levels}
    examples = worlds.examples(look_seed=look_seed)
    while batch := list(islice(examples, worlds.pairs_per_world)):
        source = _frames(network, [example.source for example in batch])
        target = _frames(network, [example.target for example in batch])
        outputs = network(source, target).levels
        copied = network.teacher.encoder.levels(source, levels)
        for level, copy in zip(levels, copied, strict=True):
            said = outputs[level]
            found[level].append(
                _Seen(
                    latents=said.motion_latents,
                    source_backward=said.source_backward,
                    target=said.target,
                    copied=copy,
                )
            )
    return {level: _joined(parts) for level, parts in found.items()}


def _frames(network: MidwayNetwork, images: list[NDArray[np.uint8]]) -> Tensor:
    return fit(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), network).images


def _joined(parts: list[_Seen]) -> _Seen:
    return _Seen(
        **{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(_Seen)}
    )


def _exchanged(
    network: MidwayNetwork, level: int, own: _Seen, alike: Tensor, worlds: WorldPairs
) -> dict[str, Tensor]:
    model, dynamics = network.dynamics.forward_models[str(level)], network.dynamics
    given = {
        "own": own.latents,
        "alike": alike,
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
    """Results as a table for people."""
    names = (*LATENTS, "copy", "transfer", "alike_wins")
    lines = [
        f"dense loss of {results['pairs']} pairs by latents",
        f"  {'level':<7}" + "".join(f"{name:>14}" for name in names),
    ]
    for level, scores in results["levels"].items():
        told = ("-" if scores[name] is None else f"{scores[name]:.4f}" for name in names)
        lines.append(f"  {level:<7}" + "".join(f"{each:>14}" for each in told))
    return "\n".join(lines)
