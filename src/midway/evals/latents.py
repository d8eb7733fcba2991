"""Motion latents: transfer to another appearance and ablation, measured by the dense loss.

Each synthetic world is rendered twice, with different colours, textures and classes but the same
motion. The forward models predict the target of the first rendering from its source, with latents
of

- `own`: the same pair;
- `alike`: the same pair in the second rendering;
- `reversed`: that pair in reverse order, with the inverse motion;
- `other_motion`: a pair of another world;
- `none`: latents of zeros.

Motion information in the latents is independent of the appearance; information that leaks from the
target is not. Latents are exchanged at one level at a time.

With a folder of videos, no world is rendered: `alike` has the latents of the other half of the same
pair of frames, `reversed` those of that half in reverse order, and `other_motion` those of another
pair (`midway.evals.probes.exchange`).
"""

import time
from collections.abc import Iterator, Mapping
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
from midway.evals.probes.exchange import HalvesConfig, encode, exchanged, half_losses
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import NetworkSource, open_network
from midway.nn.eval_mode import evaluating
from midway.progress import progress

VERSION = 1
"""Version of the code; increased if it computes different results from the same options."""
LATENTS = ("own", "alike", "reversed", "other_motion", "none")
"""Sources of the latents."""
LOOK_SEED = 1
"""Seed of the second rendering's appearance."""

DEFAULT_NETWORK = NetworkSource()
DEFAULT_WORLDS = WorldPairs()
DEFAULT_DATA = HalvesConfig()


def evaluate(
    *,
    network: Annotated[NetworkSource, tyro.conf.OmitArgPrefixes] = DEFAULT_NETWORK,
    worlds: Annotated[WorldPairs, tyro.conf.OmitArgPrefixes] = DEFAULT_WORLDS,
    data: HalvesConfig = DEFAULT_DATA,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure the dense loss with exchanged latents, by level.

    Args:
        network: Network with motion latents.
        worlds: Rendered pairs, from at least two worlds.
        data: Pairs of videos, used instead of the worlds if there is a root.
        folder: Folder for results.json; if None, nothing is written.

    Raises:
        MidwayError: The network cannot be read or has no latents, there is only one world, or the
            root has no usable clips.

    """
    start = time.monotonic()
    opened = open_network(network)
    if data.root:
        losses, settings = half_losses(opened.network, data), {"data": to_json(data)}
    else:
        losses, settings = exchanged_losses(opened.network, worlds), to_json(worlds)
    results = complete(
        {
            **settings,
            "network": to_json(network),
            "pairs": len(next(iter(losses.values()))["own"]),
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
        network: Network with motion latents; its mode is restored.
        worlds: Pairs that are rendered.

    Returns:
        For each level, losses of shape (pairs,) for each of `LATENTS` and for `copy`, the baseline
        that predicts the teacher's features of the source.

    Raises:
        MidwayError: The network has no latents, or there is only one world.

    """
    if worlds.num_worlds < 2:
        raise MidwayError("exchange of latents: need two worlds; give --num-worlds 2 or more")
    with evaluating(network):
        own = encode(network, _batches(network, worlds, look_seed=None))
        alike = encode(network, _batches(network, worlds, look_seed=LOOK_SEED))
        # Pairs are ordered by world, so this shifts each pair's latents to the next world.
        return {
            level: exchanged(
                network,
                level,
                each,
                {
                    "alike": alike[level].latents,
                    "reversed": alike[level].reversed_latents,
                    "other_motion": each.latents.roll(worlds.pairs_per_world, dims=0),
                },
            )
            for level, each in own.items()
        }


def summary(losses: Mapping[str, Tensor]) -> dict[str, float | None]:
    """Return mean losses over pairs, `transfer`, `alike_wins` and `motion_gain`.

    Args:
        losses: Losses of each pair at one level, from `exchanged_losses`.

    Returns:
        - Mean losses by name;
        - `transfer` = (other_motion - alike) / (other_motion - own), the share of the latents'
          benefit that survives the change of appearance: 1 if they contain only motion, 0 if
          nothing transfers, None if there is no benefit;
        - `alike_wins`, the share of pairs with a lower loss for `alike` than for `other_motion`;
        - `motion_gain` = 1 - alike / min(reversed, other_motion), the relative fall of the loss by
          the right motion: positive only for latents that contain what reversal inverts, motion or
          a change of light; None if the loss is 0.

    """
    means: dict[str, float | None] = {name: each.mean().item() for name, each in losses.items()}
    benefit = (losses["other_motion"] - losses["own"]).mean().item()
    kept = (losses["other_motion"] - losses["alike"]).mean().item()
    means["transfer"] = kept / benefit if benefit > 0 else None
    wrong = min(losses[name].mean().item() for name in ("reversed", "other_motion"))
    means["motion_gain"] = 1 - losses["alike"].mean().item() / wrong if wrong > 0 else None
    means["alike_wins"] = (losses["alike"] < losses["other_motion"]).double().mean().item()
    return means


def _batches(
    network: MidwayNetwork, worlds: WorldPairs, *, look_seed: int | None
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield source and target of all pairs, one world per batch."""
    count = worlds.num_worlds * worlds.pairs_per_world
    examples = progress(worlds.examples(look_seed=look_seed), "pairs", count)
    while batch := list(islice(examples, worlds.pairs_per_world)):
        source = _frames(network, [example.source for example in batch])
        yield source, _frames(network, [example.target for example in batch])


def _frames(network: MidwayNetwork, images: list[NDArray[np.uint8]]) -> Tensor:
    return fit(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2), network).images


def report(results: Mapping[str, Any]) -> str:
    """Format results as a table."""
    names = (*LATENTS, "copy", "transfer", "alike_wins", "motion_gain")
    levels = results["levels"]
    lines = [
        f"dense loss of {counted(results['pairs'], 'pair')} by latents",
        f"  {'level':<13}" + "".join(f"{level:>10}" for level in levels),
    ]
    for name in names:
        cells = ("-" if each[name] is None else f"{each[name]:.4f}" for each in levels.values())
        lines.append(f"  {name:<13}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)
