"""Planning on walks: goals, arms, roll-outs and the command."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from midway.cli import main
from midway.config import to_json
from midway.data.synthetic.walk import Walk, WalkConfig
from midway.data.synthetic.world import WorldConfig
from midway.errors import MidwayError
from midway.evals.planning import (
    NetworkModel,
    PlanningConfig,
    open_action_network,
    pixel_model,
    rollout_losses,
    start_and_goal,
    walked,
)
from midway.methods.action_conditioned import ActionConditionedConfig
from midway.methods.base import build_method
from midway.models.action import ActionNetwork, ActionNetworkConfig
from midway.models.encoders.vit import EncoderConfig
from midway.train.checkpoint import save_checkpoint
from midway.train.optim import AdamW, OptimConfig

WALK = WalkConfig(
    picture=WorldConfig(height=64, width=64, num_objects=4, backdrop="clouds"),
    side=32,
    num_frames=20,
)
PLANNING = PlanningConfig(walk=WALK, num_walks=6, train_walks=60, num_steps=3)
SIZES = ActionNetworkConfig(
    encoder=EncoderConfig(image_size=(32, 32), patch_size=8, width=24, depth=2, heads=2),
    level=2,
    hidden=8,
    forward_depth=2,
    forward_heads=2,
)


def write_run(folder: Path, config: ActionConditionedConfig) -> Path:
    """The checkpoint of a run that was not trained."""
    torch.manual_seed(0)
    method = build_method(config)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"method": to_json(config)}))
    optimizer = AdamW(method, method.parameter_groups(), OptimConfig())
    scaler = torch.amp.GradScaler(enabled=False)
    save_checkpoint(folder, step=1, objective=method, optimizer=optimizer, scaler=scaler, keep=1)
    return folder


def test_goals_are_out_of_the_radius_and_within_one_action_less() -> None:
    for seed in range(30):
        start, goal = start_and_goal(Walk(WALK, seed), PLANNING)
        assert np.abs(goal - start).max() <= 2 * WALK.longest
        assert np.linalg.norm(goal - start) > PLANNING.radius
        assert ((goal - start) % WALK.stride == 0).all()


def test_plans_by_pixels_end_nearer_to_the_goal_than_random_actions() -> None:
    model, random = pixel_model(PLANNING), np.random.default_rng(0)
    distances = {"planned": 0.0, "random": 0.0}
    for seed in range(1_000_000, 1_000_008):
        walk = Walk(WALK, seed)
        start, goal = start_and_goal(walk, PLANNING)
        for name, chosen in (("planned", model), ("random", None)):
            end = walked(walk, start, goal, chosen, 2, PLANNING, random)
            distances[name] += float(np.linalg.norm(end - goal))
    assert distances["planned"] < 0.5 * distances["random"]


def test_rollouts_equal_a_slow_loop_and_copying_stays_at_the_first_frame() -> None:
    torch.manual_seed(0)
    network = ActionNetwork(SIZES).eval()
    config = replace(PLANNING, num_walks=2, rollout_steps=3)
    with torch.no_grad():
        found = rollout_losses(NetworkModel(network, WALK), config)
    losses = torch.zeros(2, 3, dtype=torch.float64)
    for seed in range(1_000_000, 1_000_002):
        walk = Walk(WALK, seed)
        places, actions = walk.path(4)
        images = torch.from_numpy(np.stack([walk.view(place) for place in places]))
        mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
        images = ((images / 255 - mean) / std).permute(0, 3, 1, 2).float()
        state = network.state(images[:1])
        for step in range(3):
            state = network.step(state, torch.from_numpy(actions[step : step + 1]))
            seen = network.target(images[step + 1 : step + 2])
            for row, other in enumerate((state, network.target(images[:1]))):
                losses[row, step] += patch_loss(other, seen) / 2
    assert found["predicted"] == pytest.approx(losses[0].tolist(), rel=1e-4)
    assert found["copied"] == pytest.approx(losses[1].tolist(), rel=1e-4)
    ratios = (losses[0] / losses[1]).tolist()
    assert found["predicted_over_copied"] == pytest.approx(ratios, rel=1e-4)


def patch_loss(one: Tensor, two: Tensor) -> float:
    unit = [x[:, 1:] / x[:, 1:].norm(dim=-1, keepdim=True) for x in (one, two)]
    return (unit[0] - unit[1]).square().sum(-1).mean().item()


def test_the_command_scores_all_arms_of_a_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = write_run(tmp_path / "run", ActionConditionedConfig(network=SIZES))
    words = ["eval", "planning", "--network", str(run), "--accelerator", "cpu"]
    words += ["--num-walks", "2", "--train-walks", "15", "--num-steps", "2", "--beam", "2"]
    words += ["--rollout-steps", "2", "--folder", str(tmp_path / "out"), "--json"]
    assert main(words) == 0
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    assert results == json.loads((tmp_path / "out" / "results.json").read_text())
    names = ["network", "network_greedy", "untrained", "pixels", "pixels_greedy", "random"]
    assert [*results["arms"]] == names
    for arm in results["arms"].values():
        low, high = arm["interval"]
        assert low <= arm["share"] == arm["reached"] / 2 <= high
    assert [len(each) for each in results["rollouts"].values()] == [2, 2, 2]
    assert [line.split()[0] for line in printed[1:7]] == names


def test_the_network_of_a_run_is_opened_with_its_weights(tmp_path: Path) -> None:
    config = ActionConditionedConfig(network=SIZES)
    run = write_run(tmp_path / "run", config)
    network, weights = open_action_network(str(run))
    torch.manual_seed(0)
    expected = ActionNetwork(SIZES).state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in network.state_dict().items())
    assert str(run) in str(weights.checkpoint)


def test_other_runs_and_other_actions_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(MidwayError, match="synthetic-tiny: is no run of action_conditioned"):
        open_action_network("synthetic-tiny")
    run = write_run(
        tmp_path / "run", ActionConditionedConfig(network=replace(SIZES, action_size=3))
    )
    assert main(["eval", "planning", "--network", str(run)]) == 2
    assert "its actions have 3 numbers, but walks need 2" in capsys.readouterr().err
    with pytest.raises(MidwayError, match="num_steps 1 is too small"):
        PlanningConfig(num_steps=1)
