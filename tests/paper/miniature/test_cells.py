"""Order of the cells, and the choice of trials."""

from dataclasses import replace

from midway.paper.miniature.arms import ABLATIONS, ARMS
from midway.paper.miniature.cells import all_cells, chosen_trials
from midway.paper.miniature.protocol import LONG, PROTOCOL
from midway.paper.miniature.records import Record


def trial_of(arm: str, trial: int, linear: float, near: float, failure: str = "") -> Record:
    scores = {} if failure else {"linear": linear, "near": near}
    return Record(
        protocol=PROTOCOL.hash(),
        config="",
        purpose="choose",
        dataset="synthetic",
        arm=arm,
        seed=PROTOCOL.choosing_seed,
        trial=trial,
        steps=1,
        failure=failure,
        scores=scores,
    )


def test_the_best_mean_of_both_tasks_is_chosen_once_all_trials_are_done():
    one = trial_of("dino", 0, 20, 30)
    assert chosen_trials([one], PROTOCOL) == {}
    assert chosen_trials([one, trial_of("dino", 1, 15, 36)], PROTOCOL) == {"dino": 1}
    assert chosen_trials([trial_of("dino", 1, 15, 35), one], PROTOCOL) == {"dino": 0}
    assert chosen_trials([one, trial_of("dino", 1, 0, 0, "diverged")], PROTOCOL) == {"dino": 0}


def test_no_choice_sees_camvid_or_a_reported_seed():
    cells = all_cells(PROTOCOL, {})
    chosen = [cell for cell in cells if cell.purpose == "choose"]
    assert {cell.dataset for cell in chosen} == {"synthetic"}
    assert not {cell.seed for cell in chosen} & {c.seed for c in cells if c.purpose == "report"}
    first, second = PROTOCOL.choosing_worlds, PROTOCOL.reporting_worlds
    assert second - first > PROTOCOL.test_worlds + PROTOCOL.readout_worlds + PROTOCOL.flow_worlds
    assert (PROTOCOL.choosing_seed + 1) * PROTOCOL.num_videos < first


def test_a_protocol_with_one_trial_has_no_choice_and_may_run_some_arms():
    chosen = chosen_trials([], LONG)
    assert chosen["midway"] == chosen["croco"] == 0
    cells = [cell for cell in all_cells(LONG, chosen) if cell.purpose != "flow"]
    assert {cell.purpose for cell in cells} == {"report"}
    assert {cell.arm for cell in cells} == {*LONG.arms}
    assert {cell.trial for cell in cells} == {0}
    assert {cell.seed for cell in cells} == {0, 1, 2}


def test_the_bound_of_seeds_holds_for_all_arms():
    cells = all_cells(replace(PROTOCOL, max_seeds=1), {"midway": 0})
    assert {cell.seed for cell in cells if cell.purpose == "report"} == {0}
    assert ABLATIONS[0].name in {cell.arm for cell in cells}


def test_seeds_come_in_rounds_and_ablations_take_the_choice_of_midway():
    cells = [c for c in all_cells(PROTOCOL, {"midway": 1}) if c.purpose == "report"]
    for arms in (ARMS, ABLATIONS):
        names = {arm.name for arm in arms}
        seeds = [cell.seed for cell in cells if cell.arm in names]
        assert seeds == sorted(seeds)
        assert len(seeds) == 2 * sum(arm.num_seeds for arm in arms)
    first = [cell.arm for cell in cells if cell.dataset == "camvid" and cell.seed == 0]
    assert first[:6] == ["untrained", "filters", "pixels", "still", "dino", "mae"]
    assert cells[-1].arm == ABLATIONS[-1].name
    trials = {cell.arm: cell.trial for cell in cells}
    assert (trials["gap-0"], trials["shuffled"], trials["dino"], trials["filters"]) == (
        1,
        1,
        None,
        0,
    )
    names = {cell.name for cell in all_cells(PROTOCOL, {})}
    assert len(names) == len(all_cells(PROTOCOL, {}))
