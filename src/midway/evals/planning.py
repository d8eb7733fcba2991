"""Planning with an action-conditioned forward model on synthetic walks, and its roll-outs.

A camera looks at a picture and gets a goal frame, seen from elsewhere. At each step the planner
chooses the action whose predicted frames come nearest to the goal, the camera moves, and the
planner looks again. Arms:

- `network`, and `network_greedy`, which looks one action ahead only;
- `untrained`: a network of the same sizes with fresh weights;
- `pixels`, `pixels_greedy`: shrunk frames, and one affine map per action, fitted to training walks;
- `random`: random actions.

Roll-outs of the network are compared with copying the first frame's features.
"""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from torch import Tensor

from midway.analysis.inputs import fit
from midway.config import check_at_least, from_json, read_json, to_json
from midway.data.synthetic.walk import Place, Walk, WalkConfig
from midway.errors import MidwayError, counted
from midway.evals.probes.planner import Frames, PixelModel, WorldModel, plan, wilson
from midway.evals.results import Weights, complete, protocol_version, write_results
from midway.models.action import ActionNetwork, ActionNetworkConfig
from midway.models.weights.check import check_tensors
from midway.models.weights.files import RUN_PREFIX, read_weights, sha256_of
from midway.models.weights.sources import weights_hash
from midway.nn.device import Accelerator, pick_device
from midway.progress import progress

VERSION = 1
"""Version of the code; increased if it computes different results from the same options."""
METHOD = "action_conditioned"
"""Method of the runs that can plan."""


@dataclass(frozen=True, kw_only=True)
class PlanningConfig:
    """Walks, goals and the search."""

    walk: Annotated[WalkConfig, tyro.conf.Suppress] = field(default_factory=WalkConfig)
    """Walks, whose steps equal those of the training; not an option of the command."""
    num_walks: int = 50
    """Number of walks; each has one start and one goal."""
    first_seed: int = 1_000_000
    """Seed of the first walk; the others follow. Walks for training have lower seeds."""
    train_walks: int = 400
    """Number of walks, from seed 0 on, that the model of pixels is fitted to."""
    num_steps: int = 4
    """Actions in which to reach the goal. One fewer suffices, so one mistake can be corrected."""
    horizon: int = 2
    """Actions that the planner looks ahead."""
    beam: int = 25
    """Sequences that the search continues."""
    radius: float = 4.0
    """Largest distance from the goal that counts as a success, in pixels."""
    rollout_steps: int = 5
    """Steps of the roll-outs that are compared with copying."""

    def __post_init__(self) -> None:
        least = {"num_walks": 1, "first_seed": 0, "train_walks": 1, "num_steps": 2, "horizon": 1}
        check_at_least("planning", self, **least, beam=1, rollout_steps=1, radius=0.0)


DEFAULT_PLANNING = PlanningConfig()


def evaluate(
    *,
    network: str,
    planning: Annotated[PlanningConfig, tyro.conf.OmitArgPrefixes] = DEFAULT_PLANNING,
    weights_seed: int = 0,
    accelerator: Accelerator = "auto",
    folder: Path | None = None,
) -> dict[str, Any]:
    """Plan to goal frames by predicted features, and compare roll-outs with copying.

    Args:
        network: Run folder or checkpoint of the method action_conditioned.
        planning: Walks, goals and the search.
        weights_seed: Seed of the fresh weights and of the random actions.
        accelerator: auto uses a GPU if there is one.
        folder: Folder for results.json; if None, nothing is written.

    Raises:
        MidwayError: The network cannot be read, or is of another method or other actions.

    """
    start = time.monotonic()
    trained, weights = open_action_network(network)
    torch.manual_seed(weights_seed)
    fresh, device = ActionNetwork(trained.config).eval(), pick_device(accelerator)
    if trained.config.action_size != 2:
        raise MidwayError(
            f"{network}: its actions have {trained.config.action_size} numbers, but walks need 2; "
            "give a run trained on walks"
        )
    models = {
        name: NetworkModel(each.to(device), planning.walk)
        for name, each in (("network", trained), ("untrained", fresh))
    }
    with torch.no_grad():
        arms = scored(models, planning, weights_seed)
        losses = rollout_losses(models["network"], planning)
    settings = to_json(planning)
    results = complete(
        {**settings, "network": network, "arms": arms, "rollouts": losses},
        protocol="planning",
        version_hash=protocol_version(VERSION, {**settings, "weights_seed": weights_seed}),
        weights=weights,
        device=device,
        seconds=time.monotonic() - start,
    )
    if folder:
        write_results(folder, results)
    return results


def open_action_network(name: str) -> tuple[ActionNetwork, Weights]:
    """Open the network of a run of the method, in evaluation mode on the CPU.

    Raises:
        MidwayError: There is no such run, or it is of another method or not readable.

    """
    file = read_weights(name)
    config = file.path.parent.parent / "config.json"
    method = read_json(config).get("method") if config.is_file() else None
    if not isinstance(method, Mapping) or method.get("name") != METHOD:
        raise MidwayError(f"{name}: is no run of {METHOD}; give the folder of one")
    sizes = from_json(ActionNetworkConfig, method.get("network", {}), where=str(config))
    network, where = ActionNetwork(sizes), str(file.path)
    own = {f"{RUN_PREFIX}{key}": tensor for key, tensor in network.state_dict().items()}
    check_tensors(own, file.tensors, where=where, what="the network")
    network.load_state_dict(
        {key.removeprefix(RUN_PREFIX): tensor for key, tensor in file.tensors.items()}
    )
    hashes = {"weights_sha256": weights_hash(network), "checkpoint_sha256": sha256_of(file.path)}
    return network.eval(), Weights(checkpoint=where, **hashes)


class NetworkModel:
    """World model of an action-conditioned network; distances are those of patches (eq. 1)."""

    def __init__(self, network: ActionNetwork, walk: WalkConfig) -> None:
        self.network = network
        self._actions = torch.from_numpy(walk.actions).to(next(network.parameters()))

    def state(self, frames: Frames) -> Tensor:
        """Return the student's states."""
        return self.network.state(self._fitted(frames))

    def goal(self, frames: Frames) -> Tensor:
        """Return the teacher's states."""
        return self.network.target(self._fitted(frames))

    def step(self, states: Tensor, actions: Tensor) -> Tensor:
        """Predict the states after actions."""
        return self.network.step(states, self._actions[actions.to(self._actions.device)])

    def distance(self, states: Tensor, goal: Tensor) -> Tensor:
        """Return the dense loss of each state, without the class token."""
        cosine = torch.cosine_similarity(states[:, 1:], goal[:, 1:], dim=-1)  # (N, patches)
        return 2 - 2 * cosine.mean(1)

    def _fitted(self, frames: Frames) -> Tensor:
        return fit(frames.permute(0, 3, 1, 2), self.network.encoder).images


def scored(
    networks: Mapping[str, NetworkModel], config: PlanningConfig, seed: int
) -> dict[str, dict[str, Any]]:
    """Return successes of all arms: their number, share and interval, and the final distance."""
    pixels = pixel_model(config)
    arms: dict[str, tuple[WorldModel | None, int]] = {
        "network": (networks["network"], config.horizon),
        "network_greedy": (networks["network"], 1),
        "untrained": (networks["untrained"], config.horizon),
        "pixels": (pixels, config.horizon),
        "pixels_greedy": (pixels, 1),
        "random": (None, 0),
    }
    distances: dict[str, list[float]] = {name: [] for name in arms}
    random = np.random.default_rng(seed)
    seeds = range(config.first_seed, config.first_seed + config.num_walks)
    for number in progress(seeds, "walks", config.num_walks):
        walk = Walk(config.walk, number)
        start, goal = start_and_goal(walk, config)
        for name, (model, horizon) in arms.items():
            end = walked(walk, start, goal, model, horizon, config, random)
            distances[name].append(float(np.linalg.norm(end - goal)))
    return {name: _summary(found, config.radius) for name, found in distances.items()}


def start_and_goal(walk: Walk, config: PlanningConfig) -> tuple[Place, Place]:
    """Draw a start, and a goal outside the radius that is at most ``num_steps - 1`` steps away."""
    reach = (config.num_steps - 1) * config.walk.longest
    while True:
        start, goal = walk.random_place(), walk.random_place()
        offset = np.abs(goal - start)
        if offset.max() <= reach and np.linalg.norm(offset) > config.radius:
            return start, goal


def walked(
    walk: Walk,
    start: Place,
    goal: Place,
    model: WorldModel | None,
    horizon: int,
    config: PlanningConfig,
    random: np.random.Generator,
) -> Place:
    """Return the place after `num_steps` actions, each planned from the current view.

    Args:
        walk: Picture and camera.
        start: Place at the start.
        goal: Place of the goal; a model sees only the frame there.
        model: World model; None takes random actions.
        horizon: Actions that the planner looks ahead.
        config: Search.
        random: Source of random actions.

    """
    place, actions = start, config.walk.actions
    aim = None if model is None else model.goal(_frames(walk, goal))
    for taken in range(config.num_steps):
        if model is None or aim is None:
            chosen = int(random.integers(len(actions)))
        else:
            chosen = plan(
                model,
                model.state(_frames(walk, place)),
                aim,
                num_actions=len(actions),
                horizon=min(horizon, config.num_steps - taken),
                beam=config.beam,
            )
        place = walk.moved(place, actions[chosen])
    return place


def pixel_model(config: PlanningConfig) -> PixelModel:
    """Fit the model of pixels to the walks of the training seeds.

    Raises:
        MidwayError: There are too few walks for all actions.

    """
    first, second, numbers = [], [], []
    all_actions = config.walk.actions
    for seed in range(config.train_walks):
        walk = Walk(config.walk, seed)
        places, actions = walk.path(config.walk.num_frames)
        views = [walk.view(place) for place in places]
        first += views[:-1]
        second += views[1:]
        taken = (actions[:-1, None] == all_actions).all(2)  # (steps, actions)
        numbers.append(taken.argmax(1))
    return PixelModel(
        torch.from_numpy(np.stack(first)),
        torch.from_numpy(np.stack(second)),
        torch.from_numpy(np.concatenate(numbers)),
        num_actions=len(all_actions),
        cells=config.walk.side // config.walk.stride,
    )


def rollout_losses(model: NetworkModel, config: PlanningConfig) -> dict[str, list[float]]:
    """Return the dense loss after each step of roll-outs, and that of copying the first frame."""
    predicted: list[list[Tensor]] = [[] for _ in range(config.rollout_steps)]
    copied: list[list[Tensor]] = [[] for _ in range(config.rollout_steps)]
    all_actions = config.walk.actions
    for seed in range(config.first_seed, config.first_seed + config.num_walks):
        walk = Walk(config.walk, seed)
        places, actions = walk.path(config.rollout_steps + 1)
        numbers = torch.from_numpy((actions[:-1, None] == all_actions).all(2).argmax(1))
        seen = model.goal(torch.cat([_frames(walk, place) for place in places]))
        state = model.state(_frames(walk, places[0]))
        for step, number in enumerate(numbers):
            state, target = model.step(state, number[None]), seen[step + 1 : step + 2]
            predicted[step].append(model.distance(state, target))
            copied[step].append(model.distance(seen[:1], target))
    means = {
        name: [torch.cat(each).mean().item() for each in losses]
        for name, losses in (("predicted", predicted), ("copied", copied))
    }
    ratios = [p / c for p, c in zip(means["predicted"], means["copied"], strict=True)]
    return {**means, "predicted_over_copied": ratios}


def _frames(walk: Walk, place: Place) -> Frames:
    return torch.from_numpy(walk.view(place).copy())[None]


def _summary(distances: list[float], radius: float) -> dict[str, Any]:
    reached = sum(distance <= radius for distance in distances)
    return {
        "reached": reached,
        "share": reached / len(distances),
        "interval": wilson(reached, len(distances)),
        "mean_distance": sum(distances) / len(distances),
    }


def report(results: Mapping[str, Any]) -> str:
    """Format results as two tables."""
    lines = [
        f"goals reached within {results['radius']:g} pixels after {results['num_steps']} actions, "
        f"of {counted(results['num_walks'], 'walk')}",
    ]
    for name, arm in results["arms"].items():
        low, high = (100 * bound for bound in arm["interval"])
        lines.append(
            f"  {name:<16}{100 * arm['share']:>6.1f} % ({low:.1f} to {high:.1f})"
            f"{arm['mean_distance']:>8.1f} px from it on average"
        )
    lines.append("dense loss after each step: predicted, copied, ratio")
    rows = zip(*(results["rollouts"].values()), strict=True)
    for step, (predicted, copied, ratio) in enumerate(rows, start=1):
        lines.append(f"  {step:<16}{predicted:>6.3f}{copied:>8.3f}{ratio:>8.2f}")
    return "\n".join(lines)
