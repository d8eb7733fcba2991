"""Order of the cells of the miniature benchmark, and the choice of trials."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from math import inf

from midway.paper.miniature.arms import ABLATIONS, ARMS, FEW, MANY, Arm, arms_by_name
from midway.paper.miniature.measures import CHOOSING
from midway.paper.miniature.protocol import DATASETS, Protocol
from midway.paper.miniature.records import Cell, Record


def all_cells(protocol: Protocol, chosen: Mapping[str, int]) -> list[Cell]:
    """Return all cells in their order.

    The order is: the first seed of the arms without training; trials and first seed of the arms
    with the most seeds; trials and first seed of the other arms; each further seed, of all arms;
    the ablations; the flow finetunings.

    Args:
        protocol: Trials and seeds.
        chosen: Index of the chosen trial, by arm; only arms whose trials are done.

    """
    found = []
    for is_trained, count in ((False, None), (True, MANY), (True, FEW)):
        arms = [
            arm
            for arm in arms_of(protocol, ARMS)
            if arm.is_trained == is_trained and count in (None, arm.num_seeds)
        ]
        found += [cell for arm in arms for cell in _trials(arm, protocol)]
        found += _reported(arms, 0, chosen)
    for seed in range(1, MANY):
        arms = [arm for arm in arms_of(protocol, ARMS) if seed < num_seeds(arm, protocol)]
        found += _reported(arms, seed, chosen)
    for seed in range(FEW):
        arms = [arm for arm in arms_of(protocol, ABLATIONS) if seed < num_seeds(arm, protocol)]
        found += _reported(arms, seed, chosen)
    # Flow comes last, because each rate costs as much as a pretraining.
    return found + [
        replace(cell, purpose="flow", rate=rate)
        for cell in found
        if cell.purpose == "report" and cell.dataset == "synthetic"
        if arms_by_name()[cell.arm].kind not in ("filters", "pixels", "still")
        for rate in range(len(protocol.flow_rates))
    ]


def arms_of(protocol: Protocol, arms: Sequence[Arm]) -> list[Arm]:
    """Return the arms that a protocol runs."""
    return [arm for arm in arms if not protocol.arms or arm.name in protocol.arms]


def num_seeds(arm: Arm, protocol: Protocol) -> int:
    """Return the number of seeds of an arm in a protocol."""
    return min(arm.num_seeds, protocol.max_seeds)


def _trials(arm: Arm, protocol: Protocol) -> list[Cell]:
    """Return the cells of an arm's trials; none if there is one trial, or another arm chooses."""
    has_trials = arm.is_trained and arm.chooser == arm.name and len(protocol.trials) > 1
    return [
        Cell(
            purpose="choose",
            dataset="synthetic",
            arm=arm.name,
            seed=protocol.choosing_seed,
            trial=trial,
        )
        for trial in range(len(protocol.trials) if has_trials else 0)
    ]


def _reported(arms: Sequence[Arm], seed: int, chosen: Mapping[str, int]) -> list[Cell]:
    """Return the reported cells of a seed on both datasets."""
    return [
        Cell(
            purpose="report",
            dataset=dataset,
            arm=arm.name,
            seed=seed,
            trial=chosen.get(arm.chooser) if arm.is_trained else 0,
        )
        for dataset in DATASETS
        for arm in arms
    ]


def chosen_trials(records: Sequence[Record], protocol: Protocol) -> dict[str, int]:
    """Return the best trial of each arm whose trials are all done, by the mean of `CHOOSING`.

    A single trial is chosen without any record.
    """
    if len(protocol.trials) == 1:
        return {arm.chooser: 0 for arm in (*ARMS, *ABLATIONS)}
    found: dict[str, int] = {}
    for arm in ARMS:
        trials = {
            record.trial: sum(record.scores.get(name, -inf) for name in CHOOSING)
            for record in records
            if record.purpose == "choose" and record.arm == arm.name
        }
        if len(trials) == len(protocol.trials):
            # Of equal trials the first wins, whatever the order of the records.
            found[arm.name] = max(sorted(trials), key=lambda trial: trials[trial])
    return found
