"""Planner over the predictions of a world model, and a linear world model of pixels."""

from math import inf
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.evals.probes.linear import LinearProbe
from midway.evals.probes.motion import fit_ridge

Frames = Tensor
"""uint8 of shape (N, H, W, 3)."""
CONFIDENCE = 1.959964
"""Normal quantile of two-sided 95 % intervals."""


class WorldModel(Protocol):
    """Model that predicts the states after actions, and their distance from a goal."""

    def state(self, frames: Frames) -> Tensor:
        """Return the states of frames, shape (N, ...)."""
        ...

    def goal(self, frames: Frames) -> Tensor:
        """Return the states that predictions of these frames should equal, shape (N, ...)."""
        ...

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Predict the states after actions, which are given by their numbers, shape (N,)."""
        ...

    def distance(self, states: Tensor, goal: Tensor) -> Tensor:
        """Return the distance of states (N, ...) from one goal (1, ...), shape (N,)."""
        ...


def plan(
    model: WorldModel, state: Tensor, goal: Tensor, *, num_actions: int, horizon: int, beam: int
) -> int:
    """Return the first action of the sequence whose predicted end is nearest to the goal.

    A beam search: of all sequences of one action, then two and so on, the `beam` nearest to the
    goal are continued. Sequences of any length up to the horizon compete.

    Args:
        model: World model.
        state: State at the start, shape (1, ...).
        goal: Goal of the same shape, from `WorldModel.goal`.
        num_actions: Number of actions; they are numbered from 0.
        horizon: Longest sequence.
        beam: Sequences of each length that are continued.

    """
    states, first = state, torch.zeros(1, dtype=torch.long)
    best, chosen = inf, 0
    for depth in range(horizon):
        actions = torch.arange(num_actions).repeat(len(states))
        first = first.repeat_interleave(num_actions) if depth else actions
        states = model.step(states.repeat_interleave(num_actions, dim=0), actions)
        distances = model.distance(states, goal).cpu()
        nearest = distances.topk(min(beam, len(distances)), largest=False)
        states, first = states[nearest.indices.to(states.device)], first[nearest.indices]
        if nearest.values[0] < best:
            best, chosen = nearest.values[0].item(), int(first[0])
    return chosen


class PixelModel:
    """World model of shrunk frames: one affine map from frame to next frame for each action.

    The maps are fitted by ridge regression to pairs of neighbouring frames with this action.

    Args:
        first: Frames of the pairs.
        second: Frame after each.
        actions: Number of the action between them, shape (N,).
        num_actions: Number of actions.
        cells: Side of the shrunk frames.

    Raises:
        MidwayError: An action has fewer than two pairs.

    """

    def __init__(
        self, first: Frames, second: Frames, actions: Tensor, *, num_actions: int, cells: int
    ) -> None:
        self.cells = cells
        states, later = self.state(first), self.state(second)
        self.maps: list[LinearProbe] = []
        for number in range(num_actions):
            chosen = actions == number
            if chosen.sum() < 2:
                raise MidwayError(
                    f"pixel model: action {number} is in fewer than two training steps; give more "
                    "training walks"
                )
            self.maps.append(fit_ridge(states[chosen], later[chosen]))

    def state(self, frames: Frames) -> Tensor:
        """Return the frames averaged over cells, from 0 to 1, float64 of shape (N, 3 * cells^2)."""
        colours = frames.permute(0, 3, 1, 2).double() / 255
        return F.adaptive_avg_pool2d(colours, self.cells).flatten(1)

    def goal(self, frames: Frames) -> Tensor:
        """Return the same as `state`."""
        return self.state(frames)

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Predict the next shrunk frames."""
        found = torch.empty_like(states)
        for number in actions.unique().tolist():
            chosen = actions == number
            found[chosen] = self.maps[number](states[chosen])
        return found

    def distance(self, states: Tensor, goal: Tensor) -> Tensor:
        """Return the mean squared difference of colours."""
        return (states - goal).square().mean(1)


def wilson(successes: int, trials: int) -> tuple[float, float]:
    """Return the 95 % Wilson score interval of a share.

    Examples:
        >>> [round(bound, 3) for bound in wilson(8, 10)]
        [0.49, 0.943]

    """
    square = CONFIDENCE**2
    share = successes / trials
    centre = (share + square / (2 * trials)) / (1 + square / trials)
    spread = (share * (1 - share) / trials + square / (4 * trials**2)) ** 0.5
    half = CONFIDENCE * spread / (1 + square / trials)
    return max(0.0, centre - half), min(1.0, centre + half)
