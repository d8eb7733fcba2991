"""Whether heatmaps of the dynamics show where patches go, against true flow."""

import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import torch
import tyro
from torch import Tensor, nn
from torch.nn import functional as F

from midway.analysis.inputs import Fitted, fit
from midway.analysis.perturbation import check_level, output_heatmaps
from midway.config import to_json
from midway.data.flow.datasets import FlowExample, list_pairs, load_pair
from midway.data.flow.geometry import resize_flow
from midway.data.synthetic.pairs import WorldPairs
from midway.errors import MidwayError
from midway.evals.flow import Dataset
from midway.evals.metrics.correspondence import (
    Tally,
    TruePlaces,
    chance,
    token_measures,
    true_places,
)
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.dynamics import ForwardDynamics
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import NetworkSource, open_network
from midway.nn.eval_mode import evaluating

VERSION = 1
"""Raised when the code makes something else of the same options."""
MATCHERS = ("heatmap", "features", "still")
"""Heatmaps of the forward model; likeness of features; the guess that nothing moves."""
_COLUMNS = ("near", "near_else", "epe", "mass_epe", "lean", "at_start")

NetworkOptions = Annotated[NetworkSource, tyro.conf.OmitArgPrefixes]
DEFAULT_NETWORK = NetworkSource()


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """Where pairs with true flow come from."""

    dataset: Literal["worlds"] | Dataset = "worlds"
    """Synthetic worlds made on the spot, or a flow dataset in its own layout."""
    root: Path | None = None
    """Folder of the dataset as it is unpacked."""
    split: str = "all"
    """Of the dataset."""
    worlds: Annotated[WorldPairs, tyro.conf.OmitArgPrefixes] = field(default_factory=WorldPairs)
    """Which worlds."""

    def examples(self) -> Iterator[FlowExample]:
        """Pairs one after the other.

        Raises:
            MidwayError: The data cannot be read, or a root is missing or of no use.

        """
        if self.dataset == "worlds":
            if self.root is not None:
                raise MidwayError(f"{self.root}: worlds are made, not read; add --data.dataset")
            yield from self.worlds.examples()
            return
        if self.root is None:
            raise MidwayError(f"{self.dataset}: no folder; give it by --data.root DIR")
        for pair in list_pairs(self.dataset, self.root, self.split):
            yield load_pair(pair)


DEFAULT_DATA = PairSource()


@dataclass(frozen=True, kw_only=True)
class HeatmapConfig:
    """How heatmaps are made and which patches are scored."""

    levels: tuple[int, ...] = ()
    """Levels of the forward models; all if none is named."""
    num_draws: int = 16
    """K, the perturbations that a heatmap is the mean of."""
    seed: int = 0
    """Of the draws."""
    tokens_per_pair: int = 0
    """Patches scored in each pair, evenly chosen among those the target shows; 0 for all."""
    short_side: int = 0
    """Pixels of the images' shorter side as the network sees them; 0 for the side it is made for.
    """
    moving_patches: float = 1.0
    """A patch moves if it goes at least so many patches far."""

    def __post_init__(self) -> None:
        if not self.moving_patches >= 0:
            raise MidwayError(f"moving_patches = {self.moving_patches}; give a distance, 0 or more")
        if self.num_draws < 1 or min(self.tokens_per_pair, self.short_side) < 0:
            raise MidwayError(
                "num_draws must be 1 or more, tokens_per_pair and short_side 0 or more; change "
                "what is not"
            )


DEFAULT_HEATMAPS = HeatmapConfig()


def evaluate(
    *,
    network: NetworkOptions = DEFAULT_NETWORK,
    data: PairSource = DEFAULT_DATA,
    how: Annotated[HeatmapConfig, tyro.conf.OmitArgPrefixes] = DEFAULT_HEATMAPS,
    open_gates: bool = False,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Score heatmaps against true flow, beside likeness of features and no motion.

    Args:
        network: Whose forward models are perturbed.
        data: Pairs with flow.
        how: Heatmaps and patches.
        open_gates: Force the gates of the forward models to 1, to see what they do in a network
            that learnt with them.
        folder: For results.json; nothing is written without.

    Raises:
        MidwayError: The data or the network cannot be read, or no patch can be scored.

    """
    start = time.monotonic()
    opened = open_network(network)
    if open_gates:
        force_gates_open(opened.network)
    scores, num_pairs = score_heatmaps(opened.network, data.examples(), how)
    settings = {"data": _data_settings(data), **to_json(how)}
    results = complete(
        {
            **settings,
            "network": to_json(network),
            "gates": opened.network.config.dynamics.gates and not open_gates,
            "open_gates": open_gates,
            "pairs": num_pairs,
            "levels": scores,
        },
        protocol=f"correspondence {data.dataset} {data.split}",
        version_hash=protocol_version(VERSION, settings),
        weights=weights_of(opened),
        device=next(opened.network.parameters()).device,
        seconds=time.monotonic() - start,
    )
    if folder:
        write_results(folder, results)
    return results


def force_gates_open(network: MidwayNetwork) -> None:
    """Take the gates out of the forward models: a missing gate is a gate of 1.

    Raises:
        MidwayError: There are none.

    """
    if not network.config.dynamics.gates:
        raise MidwayError("the network has no gates to open; leave --open-gates out")
    for model in network.dynamics.forward_models.values():
        assert isinstance(model, ForwardDynamics)
        model.gates = nn.ModuleList()


def score_heatmaps(
    network: MidwayNetwork, examples: Iterator[FlowExample], how: HeatmapConfig
) -> tuple[dict[str, Any], int]:
    """Measures by level, group of patches and matcher, and the number of pairs.

    Args:
        network: Its mode is restored.
        examples: Pairs with flow.
        how: Heatmaps and patches.

    Returns:
        ``scores["3"]["moving"]["heatmap"]["near"]`` and so on, as `token_measures` names them;
        groups are all patches that the target shows (`visible`) and those that move (`moving`).

    Raises:
        MidwayError: A level without forward model, or no patch that the target shows.

    """
    levels = how.levels or network.config.dynamics.levels
    for level in levels:
        check_level(network, level)
    tallies: defaultdict[tuple[int, str, str], Tally] = defaultdict(Tally)
    counts, num_pairs = {"visible": Tally(), "moving": Tally()}, 0
    for example in examples:
        num_pairs += 1
        seen = _see(network, example, how)
        if not len(seen.truth.tokens):
            continue
        moves = seen.truth.distances() >= how.moving_patches
        of_group = {"visible": torch.ones_like(moves), "moving": moves}
        guessed = chance(seen.truth, seen.fitted.grid)
        for group, which in of_group.items():
            counts[group].add({"chance": guessed[which]})
        for level, matcher, maps in _maps(network, seen, levels, how):
            measures = token_measures(maps, seen.truth, seen.fitted.patch)
            for group, which in of_group.items():
                chosen = {name: values[which] for name, values in measures.items()}
                if group == "visible":  # of what stands still, both sides are one
                    del chosen["lean"]
                tallies[level, group, matcher].add(chosen)
    if not counts["visible"].counts.get("chance"):
        raise MidwayError(f"no patch of {num_pairs} pairs can be scored; check the data")
    scores = {
        str(level): {
            group: {
                "patches": count.counts["chance"],
                **count.means(),
                **{matcher: tallies[level, group, matcher].means() for matcher in MATCHERS},
            }
            for group, count in counts.items()
        }
        for level in levels
    }
    return scores, num_pairs


@dataclass(frozen=True, kw_only=True)
class _Seen:
    """A pair as the network sees it, with the truth about its patches."""

    fitted: Fitted
    truth: TruePlaces


def _see(network: MidwayNetwork, example: FlowExample, how: HeatmapConfig) -> _Seen:
    frames = torch.from_numpy(np.stack([example.source, example.target])).permute(0, 3, 1, 2)
    fitted = fit(frames, network, short_side=how.short_side)
    size = (fitted.images.shape[2], fitted.images.shape[3])
    flow = resize_flow(torch.from_numpy(example.flow).permute(2, 0, 1), size)
    occluded = None
    if example.occluded is not None:
        mask = torch.from_numpy(example.occluded)[None, None].float()
        occluded = F.interpolate(mask, size, mode="nearest-exact")[0, 0] > 0
    truth = true_places(flow, occluded, fitted.grid)
    count = len(truth.tokens)
    if 0 < how.tokens_per_pair < count:
        chosen = torch.linspace(0, count - 1, how.tokens_per_pair).round().long()
        truth = truth.chosen(chosen)
    return _Seen(fitted=fitted, truth=truth)


def _maps(
    network: MidwayNetwork, seen: _Seen, levels: Sequence[int], how: HeatmapConfig
) -> Iterator[tuple[int, str, Tensor]]:
    """Scores of all places for each patch that counts, by level and matcher, on the CPU."""
    grid, tokens = seen.fitted.grid, seen.truth.tokens
    still = F.one_hot(tokens, grid[0] * grid[1]).double().unflatten(1, grid)
    source, target = seen.fitted.images.split(1)
    with evaluating(network):
        outputs = network(source, target).levels
        looks = network.encoder.levels(seen.fitted.images, tuple(sorted(levels)))
    for level, features in zip(sorted(levels), looks, strict=True):
        heatmaps = output_heatmaps(
            network,
            outputs[level],
            grid,
            level=level,
            tokens=tokens.tolist(),
            num_draws=how.num_draws,
            seed=how.seed,
        )
        yield level, "heatmap", heatmaps[0].cpu()
        # What all patches of a frame share says nothing of a place.
        patches = features[:, 1:].float().cpu()
        unit = F.normalize(patches - patches.mean(1, keepdim=True), dim=2)
        yield level, "features", (unit[0, tokens] @ unit[1].T).unflatten(1, grid)
        yield level, "still", still


def _data_settings(data: PairSource) -> dict[str, Any]:
    """What of it decides the numbers: not where it lies."""
    if data.dataset == "worlds":
        return {"dataset": "worlds", **to_json(data.worlds)}
    return {"dataset": data.dataset, "split": data.split}


def report(results: Mapping[str, Any]) -> str:
    """Results as tables for people."""
    gates = "forced open" if results["open_gates"] else "on" if results["gates"] else "off"
    lines = [f"{results['pairs']} pairs, gates {gates}"]
    for level, groups in results["levels"].items():
        for group, scores in groups.items():
            if not scores["patches"]:
                lines.append(f"level {level}, {group}: no patch")
                continue
            lines.append(
                f"level {level}, {group}: {scores['patches']} patches, by chance near "
                f"{scores['chance']:.3f}"
            )
            lines.append(f"  {'':<10}" + "".join(f"{name:>10}" for name in _COLUMNS))
            for matcher in MATCHERS:
                told = (_told(scores[matcher].get(name)) for name in _COLUMNS)
                lines.append(f"  {matcher:<10}" + "".join(f"{each:>10}" for each in told))
    return "\n".join(lines)


def _told(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
