"""Perturbation heatmaps of the forward models, scored against ground-truth flow."""

import time
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
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
from midway.config import require, to_json
from midway.data.flow.datasets import list_pairs
from midway.data.flow.geometry import resize_flow
from midway.data.flow.pairs import FlowExample, cut_squares, load_pair
from midway.data.synthetic.pairs import WorldPairs
from midway.errors import MidwayError, counted
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
from midway.progress import progress

VERSION = 1
"""Version of the code; increased if it computes different results from the same options."""
MATCHERS = ("heatmap", "features", "still")
"""Heatmaps of the forward model, and two baselines: feature similarity and no motion."""
_COLUMNS = ("near", "near_else", "epe", "mass_epe", "lean", "at_start")

NetworkOptions = Annotated[NetworkSource, tyro.conf.OmitArgPrefixes]
DEFAULT_NETWORK = NetworkSource()


@dataclass(frozen=True, kw_only=True)
class PairSource:
    """Source of pairs with ground-truth flow."""

    dataset: Literal["worlds"] | Dataset = "worlds"
    """Synthetic worlds, rendered on the fly, or a flow dataset in its original layout."""
    root: Path | None = None
    """Folder of the unpacked dataset."""
    split: str = "all"
    """Split of the dataset."""
    squares: bool = False
    """If True, cut the pairs into squares that overlap by half or more, for networks that were
    trained on squares. A patch counts once for each square that it is in; `pairs` in results
    counts squares."""
    square_side: int = 0
    """Side of the squares in pixels; 0, or more than the shorter side of the pairs, for the shorter
    side. The network sees smaller squares at a finer scale, in which motion is larger."""
    worlds: Annotated[WorldPairs, tyro.conf.OmitArgPrefixes] = field(default_factory=WorldPairs)
    """Synthetic worlds."""

    def __post_init__(self) -> None:
        rule = f"square_side = {self.square_side}; give 0, or a side above 0 with --data.squares"
        require("data", {rule: self.square_side == 0 or (self.squares and self.square_side > 0)})

    def num_examples(self) -> int | None:
        """Return the number of pairs if it is known: that of uncut pairs of synthetic worlds."""
        if self.dataset == "worlds" and not self.squares:
            return self.worlds.num_worlds * self.worlds.pairs_per_world
        return None

    def examples(self) -> Iterator[FlowExample]:
        """Yield the pairs, or the squares of each.

        Raises:
            MidwayError: The data cannot be read, or a root is missing or does not apply.

        """
        for example in self._whole():
            yield from cut_squares(example, self.square_side) if self.squares else [example]

    def _whole(self) -> Iterator[FlowExample]:
        if self.dataset == "worlds":
            if self.root is not None:
                raise MidwayError(
                    f"{self.root}: synthetic worlds have no folder; add --data.dataset"
                )
            yield from self.worlds.examples()
            return
        if self.root is None:
            raise MidwayError(f"{self.dataset}: no folder is given; add --data.root DIR")
        yield from map(load_pair, list_pairs(self.dataset, self.root, self.split))


DEFAULT_DATA = PairSource()


@dataclass(frozen=True, kw_only=True)
class HeatmapConfig:
    """Computation of the heatmaps, and selection of the scored patches."""

    levels: tuple[int, ...] = ()
    """Levels of the forward models; all if empty."""
    num_draws: int = 16
    """K, the number of perturbations that a heatmap averages."""
    seed: int = 0
    """Seed of the perturbations."""
    tokens_per_pair: int = 0
    """Scored patches per pair, evenly spaced over those visible in the target; 0 for all."""
    short_side: int = 0
    """Shorter side of the network's input in pixels; 0 for the side in its configuration."""
    moving_patches: float = 1.0
    """Smallest displacement of a moving patch, in patches."""

    def __post_init__(self) -> None:
        rules = {
            f"moving_patches = {self.moving_patches}; give 0 or more": self.moving_patches >= 0,
            f"num_draws = {self.num_draws}; give 1 or more": self.num_draws >= 1,
            f"tokens_per_pair = {self.tokens_per_pair}; give 0 or more": self.tokens_per_pair >= 0,
            f"short_side = {self.short_side}; give 0 or more": self.short_side >= 0,
        }
        require("", rules)


DEFAULT_HEATMAPS = HeatmapConfig()


def evaluate(
    *,
    network: NetworkOptions = DEFAULT_NETWORK,
    data: PairSource = DEFAULT_DATA,
    how: Annotated[HeatmapConfig, tyro.conf.OmitArgPrefixes] = DEFAULT_HEATMAPS,
    open_gates: bool = False,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Score heatmaps against ground-truth flow, with feature similarity and no motion as baselines.

    Args:
        network: Network with forward models.
        data: Pairs with ground-truth flow.
        how: Heatmaps and scored patches.
        open_gates: Set the gates of the forward models to 1, to ablate them in a network that was
            trained with gates.
        folder: Folder for results.json; if None, nothing is written.

    Raises:
        MidwayError: The data or the network cannot be read, or no patch can be scored.

    """
    start = time.monotonic()
    opened = open_network(network)
    if open_gates:
        force_gates_open(opened.network)
    scores, num_pairs = score_heatmaps(
        opened.network, data.examples(), how, num_examples=data.num_examples()
    )
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
    """Remove the gates of the forward models, which is equal to gates of 1.

    Raises:
        MidwayError: The network has no gates.

    """
    if not network.config.dynamics.gates:
        raise MidwayError("open_gates: the network has no gates; leave out --open-gates")
    for model in network.dynamics.forward_models.values():
        assert isinstance(model, ForwardDynamics)
        model.gates = nn.ModuleList()


def score_heatmaps(
    network: MidwayNetwork,
    examples: Iterable[FlowExample],
    how: HeatmapConfig,
    *,
    num_examples: int | None = None,
) -> tuple[dict[str, Any], int]:
    """Compute the metrics by level, group of patches and matcher.

    Args:
        network: Network; its mode is restored.
        examples: Pairs with ground-truth flow.
        how: Heatmaps and scored patches.
        num_examples: Number of pairs, for the progress bar; None if unknown.

    Returns:
        Metrics such as ``scores["3"]["moving"]["heatmap"]["near"]``, with the names of
        `token_measures`, and the number of pairs. Groups are all patches visible in the target
        (`visible`) and those that move (`moving`).

    Raises:
        MidwayError: A level has no forward model, or no patch can be scored.

    """
    levels = how.levels or network.config.dynamics.levels
    for level in levels:
        check_level(network, level)
    tallies: defaultdict[tuple[int, str, str], Tally] = defaultdict(Tally)
    counts, num_pairs = {"visible": Tally(), "moving": Tally()}, 0
    for example in progress(examples, "pairs", num_examples):
        num_pairs += 1
        pair = _prepared(network, example, how)
        if not len(pair.truth.tokens):
            continue
        moves = pair.truth.distances() >= how.moving_patches
        of_group = {"visible": torch.ones_like(moves), "moving": moves}
        by_chance = chance(pair.truth, pair.fitted.grid)
        for group, which in of_group.items():
            counts[group].add({"chance": by_chance[which]})
        for level, matcher, maps in _maps(network, pair, levels, how):
            measures = token_measures(maps, pair.truth, pair.fitted.patch)
            for group, which in of_group.items():
                chosen = {name: values[which] for name, values in measures.items()}
                if group == "visible":  # undefined for patches that do not move
                    del chosen["lean"]
                tallies[level, group, matcher].add(chosen)
    if not counts["visible"].counts.get("chance"):
        raise MidwayError(f"flow: no patch of {num_pairs} pairs can be scored; check the data")
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
class _Pair:
    """A pair resized for the network, with the ground truth of its patches."""

    fitted: Fitted
    truth: TruePlaces


def _prepared(network: MidwayNetwork, example: FlowExample, how: HeatmapConfig) -> _Pair:
    """Resize images, flow and occlusion mask to the network's input, and select patches."""
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
    return _Pair(fitted=fitted, truth=truth)


def _maps(
    network: MidwayNetwork, pair: _Pair, levels: Sequence[int], how: HeatmapConfig
) -> Iterator[tuple[int, str, Tensor]]:
    """Yield level, matcher and maps (patches, rows, columns) of the scored patches, on the CPU."""
    grid, tokens = pair.fitted.grid, pair.truth.tokens
    still = F.one_hot(tokens, grid[0] * grid[1]).double().unflatten(1, grid)
    source, target = pair.fitted.images.split(1)
    with evaluating(network):
        outputs = network(source, target).levels
        by_level = network.encoder.levels(pair.fitted.images, tuple(sorted(levels)))
    for level, features in zip(sorted(levels), by_level, strict=True):
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
        # (2, patches, dim). The mean over patches would dominate the cosine similarity.
        patches = features[:, 1:].float().cpu()
        unit = F.normalize(patches - patches.mean(1, keepdim=True), dim=2)
        yield level, "features", (unit[0, tokens] @ unit[1].T).unflatten(1, grid)
        yield level, "still", still


def _data_settings(data: PairSource) -> dict[str, Any]:
    """Return the settings of the data that affect the results, without its folder."""
    if data.dataset == "worlds":
        settings: dict[str, Any] = {"dataset": "worlds", **to_json(data.worlds)}
    else:
        settings = {"dataset": data.dataset, "split": data.split}
    # With their defaults, later options do not change the version hash of results.
    squares = {"squares": True} if data.squares else {}
    side = {"square_side": data.square_side} if data.square_side else {}
    return {**settings, **squares, **side}


def report(results: Mapping[str, Any]) -> str:
    """Format results as tables."""
    gates = "forced open" if results["open_gates"] else "on" if results["gates"] else "off"
    lines = [f"{counted(results['pairs'], 'pair')}, gates {gates}"]
    for level, groups in results["levels"].items():
        for group, scores in groups.items():
            if not scores["patches"]:
                lines.append(f"level {level}, {group}: no patches")
                continue
            lines.append(
                f"level {level}, {group}: {counted(scores['patches'], 'patch', 'patches')}, near "
                f"by chance {scores['chance']:.3f}"
            )
            lines.append(f"  {'':<10}" + "".join(f"{name:>10}" for name in _COLUMNS))
            for matcher in MATCHERS:
                cells = (_formatted(scores[matcher].get(name)) for name in _COLUMNS)
                lines.append(f"  {matcher:<10}" + "".join(f"{cell:>10}" for cell in cells))
    return "\n".join(lines)


def _formatted(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
