"""The planner finds the way in worlds that are known, and the model of pixels learns shifts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from midway.data.synthetic.walk import Walk, WalkConfig
from midway.data.synthetic.world import WorldConfig
from midway.errors import MidwayError
from midway.evals.planning import PlanningConfig, pixel_model
from midway.evals.probes.planner import PixelModel, plan, wilson

STEPS = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])


class Plane:
    """A world whose state is a place, with a wall that distances do not see."""

    def __init__(self, *, wall: bool = False) -> None:
        self.wall = wall

    def state(self, frames: Tensor) -> Tensor:
        return frames.double()

    goal = state

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        ends = states + STEPS[actions]
        is_blocked = (ends[:, :1] == 1) & (ends[:, 1:] == 0) if self.wall else torch.tensor(False)
        return torch.where(is_blocked, states, ends)

    def distance(self, states: Tensor, goal: Tensor) -> Tensor:
        return (states - goal).norm(dim=1)


def place(x: float, y: float) -> Tensor:
    return torch.tensor([[x, y]], dtype=torch.float64)


@pytest.mark.parametrize("horizon", [1, 3])
def test_it_goes_to_the_goal_and_stays_there(horizon: int) -> None:
    model, state, goal = Plane(), place(2, -1), place(0, 1)
    seen = []
    for _ in range(6):
        action = plan(model, state, goal, num_actions=5, horizon=horizon, beam=4)
        state = model.step(state, torch.tensor([action]))
        seen.append(model.distance(state, goal).item())
    assert seen[3:] == [0, 0, 0]


def test_only_a_longer_horizon_goes_around_a_wall() -> None:
    model, goal = Plane(wall=True), place(2, 0)
    ends = {}
    for horizon in (1, 4):
        state = place(0, 0)
        for _ in range(4):
            action = plan(model, state, goal, num_actions=5, horizon=horizon, beam=25)
            state = model.step(state, torch.tensor([action]))
        ends[horizon] = state
    assert torch.equal(ends[4], goal)
    assert torch.equal(ends[1], place(0, 0))


def test_a_goal_on_the_way_is_not_passed() -> None:
    # Sequences of one action compete with those of three.
    action = plan(Plane(), place(1, 0), place(0, 0), num_actions=5, horizon=3, beam=2)
    assert STEPS[action].tolist() == [-1, 0]


def test_the_model_of_pixels_predicts_shifts_of_unseen_pictures() -> None:
    config = WalkConfig(
        picture=WorldConfig(height=48, width=48, num_objects=2, backdrop="clouds"),
        side=16,
        reach=1,
        num_frames=24,
    )
    model = pixel_model(PlanningConfig(walk=config, train_walks=30))
    walk = Walk(config, 1_000_000)
    here = walk.view(np.array([8, 8]))
    for number, action in enumerate(config.actions):
        there = walk.view(walk.moved(np.array([8, 8]), action))
        frames = (torch.from_numpy(each.copy())[None] for each in (here, there))
        state, goal = map(model.state, frames)
        predicted = model.step(state, torch.tensor([number]))
        if number != 4:  # the action that stays
            assert model.distance(predicted, goal) < 0.7 * model.distance(state, goal)
        assert state.shape == (1, 3 * 4 * 4)


def test_an_action_without_pairs_is_refused() -> None:
    frames = torch.zeros(6, 8, 8, 3, dtype=torch.uint8)
    actions = torch.tensor([0, 0, 0, 1, 2, 2])
    with pytest.raises(MidwayError, match="action 1 is in fewer than two training steps"):
        PixelModel(frames, frames, actions, num_actions=3, cells=2)


def test_wilson_intervals_are_those_of_the_table_and_stay_in_range() -> None:
    assert wilson(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0, 0.2775), abs=1e-4)
    assert wilson(10, 10) == pytest.approx((0.7225, 1), abs=1e-4)
