"""Measures of health, and that taking them leaves training as it was."""

import json
import logging

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.train.checkpoint import latest_checkpoint
from midway.train.health import Health, effective_rank, spread

from .toy import Toy, ToyBatch, ToyLoader, losses, run_config, train


class Measured(Toy):
    """Measures what it would disturb if it could: draws, the mode, and a rank."""

    def health(self, batch: ToyBatch) -> dict[str, Tensor]:
        torch.rand(7)
        assert not self.training
        assert not torch.is_grad_enabled()
        return {"loss": F.mse_loss(self.student(batch.x), batch.x.sum(1, keepdim=True))}

    def pictures(self, batch: ToyBatch) -> dict[str, NDArray[np.uint8]]:
        torch.rand(7)
        assert not self.training
        assert not torch.is_grad_enabled()
        return {"batch": np.full((4, 6, 3), len(batch.x), np.uint8)}


def test_the_effective_rank_counts_directions_of_equal_weight():
    directions = torch.linalg.qr(torch.randn(20, 5)).Q.T  # 5 orthogonal ones
    features = directions.repeat(40, 1) * torch.ones(200, 1)
    assert effective_rank(features).item() == pytest.approx(5, rel=1e-5)
    assert effective_rank(features[:1].repeat(9, 1)).item() == pytest.approx(1, abs=1e-3)


def test_the_effective_rank_is_the_exponential_of_the_entropy_by_hand():
    features = torch.diag(torch.tensor([4.0, 2.0, 1.0, 1.0]))
    # Shares 1/2, 1/4, 1/8, 1/8: 1.75 bits.
    assert effective_rank(features).item() == pytest.approx(2**1.75, rel=1e-6)


def test_what_is_not_finite_has_no_rank_and_zeros_have_one():
    assert effective_rank(torch.tensor([[1.0, torch.nan], [0.0, 1.0]])).isnan()
    assert effective_rank(torch.zeros(4, 3)).item() == pytest.approx(1)


def test_the_spread_is_one_less_the_mean_cosine():
    features = torch.randn(30, 6)
    cosines = F.cosine_similarity(features[:, None], features[None], dim=2)
    assert spread(features).item() == pytest.approx(1 - cosines.mean().item(), abs=1e-6)
    assert spread(torch.ones(5, 3)).item() == pytest.approx(0, abs=1e-6)


def test_a_run_whose_health_is_measured_trains_bit_for_bit_as_one_without(tmp_path):
    with_it, without = tmp_path / "with", tmp_path / "without"
    train(run_config(with_it, health_every=3), toy=Measured())
    train(run_config(without, health_every=0), toy=Measured())
    assert losses(with_it) == losses(without)
    # Ten steps, and pictures after the third, sixth and ninth.
    events = EventAccumulator(str(with_it)).Reload()
    assert [event.step for event in events.Images("health/batch")] == [3, 6, 9]
    assert [(event.height, event.width) for event in events.Images("health/batch")] == [(4, 6)] * 3
    assert not EventAccumulator(str(without)).Reload().Tags()["images"]
    models = [
        torch.load(latest_checkpoint(folder), weights_only=True)["model"]
        for folder in (with_it, without)
    ]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])


def test_a_resumed_run_measures_what_an_uninterrupted_one_does(tmp_path):
    def told(folder):
        lines = (folder / "metrics.jsonl").read_text().splitlines()
        return {r["step"]: r.get("health/loss") for r in map(json.loads, lines)}

    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(run_config(whole, health_every=2), toy=Measured())
    train(run_config(parts, health_every=2), ToyLoader(signal_step=4), toy=Measured())
    train(run_config(parts, health_every=2), toy=Measured(), resume=True)
    assert told(parts) == told(whole)
    assert all((value is not None) == (step % 2 == 0) for step, value in told(whole).items())


def test_health_is_logged_at_its_own_steps_too(tmp_path):
    train(run_config(tmp_path, log_every=4, health_every=3), toy=Measured())
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 3, 4, 6, 8, 9, 10]


def _logged(folder, name):
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return {r["step"]: r[name] for r in map(json.loads, lines) if name in r}


def _probe(asked):
    """Which draws, and tells how often it was asked."""

    def probe():
        torch.rand(7)
        asked.append(len(asked))
        return {"score": 100.0 + asked[-1]}

    return probe


def test_a_probe_is_asked_with_the_health_and_after_the_first_step_and_no_other(tmp_path):
    asked = []
    train(run_config(tmp_path, log_every=2, health_every=3), probe=_probe(asked))
    assert _logged(tmp_path, "health/score") == {1: 100, 3: 101, 6: 102, 9: 103}
    assert [*_logged(tmp_path, "step")] == [1, 2, 3, 4, 6, 8, 9, 10]
    assert len(asked) == 4


def test_no_steps_between_measures_means_no_probe_either(tmp_path):
    asked = []
    train(run_config(tmp_path, health_every=0), probe=_probe(asked))
    assert asked == []


def test_a_run_with_a_probe_trains_bit_for_bit_as_one_without(tmp_path):
    with_it, without = tmp_path / "with", tmp_path / "without"
    train(run_config(with_it, health_every=3), probe=_probe([]))
    train(run_config(without, health_every=3))
    assert losses(with_it) == losses(without)


def test_a_resumed_run_is_not_probed_at_its_first_step_again(tmp_path):
    asked = []
    config = run_config(tmp_path, health_every=100)
    train(config, ToyLoader(signal_step=4), probe=_probe(asked))
    train(config, probe=_probe(asked), resume=True)
    assert _logged(tmp_path, "health/score") == {1: 100}


def test_an_objective_without_measures_logs_as_before(tmp_path):
    train(run_config(tmp_path, log_every=5, health_every=3))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["step"] for line in lines] == [1, 5, 10]


def test_collapse_is_warned_of_once_a_level(tmp_path, caplog):
    health = Health(run=run_config(tmp_path))
    bad = {"loss": 0.1, "health/rank_9": 1.2, "health/rank_12": 80.0, "health/spread_9": 0.5}
    with caplog.at_level(logging.WARNING):
        health.warn(bad, 500)
        health.warn(bad, 1000)
        health.warn(bad | {"health/spread_12": 0.001}, 1500)
    first, second = caplog.messages
    assert "step 500: features of level 9 have collapsed (effective rank 1.2" in first
    assert "step 1500: features of level 12 have collapsed (spread 0.001" in second
    assert str(tmp_path) in first


def test_a_collapsed_head_and_uniform_targets_are_warned_of_once(tmp_path, caplog):
    health = Health(run=run_config(tmp_path))
    bad = {"health/spread_head": 0.002, "health/dino_entropy": 0.99995, "health/dino_kl": 0.0}
    with caplog.at_level(logging.WARNING):
        health.warn({"health/spread_head": 0.2, "health/dino_entropy": 0.9}, 500)
        health.warn({"health/spread_head": float("nan"), "health/dino_entropy": 0.9}, 500)
        assert not caplog.messages
        health.warn(bad, 1000)
        health.warn(bad, 1500)
    head, targets = caplog.messages
    assert "outputs of the DINO head have collapsed (spread 0.002, below 0.01)" in head
    assert "targets of the DINO loss are uniform (entropy 1.0000 of its largest value" in targets


def test_crops_that_correlate_too_little_are_warned_of(tmp_path, caplog):
    health = Health(run=run_config(tmp_path))
    with caplog.at_level(logging.WARNING):
        health.warn({"health/dino_rho": 0.38, "health/dino_rho_needed": 0.4}, 1)
        health.warn({"health/dino_rho": 0.1}, 500)
        health.warn({"health/dino_rho": float("nan"), "health/dino_rho_needed": 0.4}, 1)
        assert not caplog.messages
        health.warn({"health/dino_rho": 0.14, "health/dino_rho_needed": 0.4}, 1)
    (line,) = caplog.messages
    assert "step 1: two crops of one place correlate by 0.14" in line
    assert "--method.targets.teacher-temperature" in line


class Starting(Measured):
    """Has a condition that is measured at the start."""

    def starting_health(self, batch: ToyBatch) -> dict[str, Tensor]:
        torch.rand(7)
        assert not self.training
        return {"condition": torch.ones(())}


def test_the_condition_of_the_start_is_measured_after_the_first_step_only(tmp_path):
    with_it, without, never = tmp_path / "with", tmp_path / "without", tmp_path / "never"
    train(run_config(with_it, health_every=3), toy=Starting())
    train(run_config(without, health_every=3), toy=Measured())
    train(run_config(never, health_every=0), toy=Starting())
    assert _logged(with_it, "health/condition") == {1: 1.0}
    assert [*_logged(with_it, "health/loss")] == [3, 6, 9]
    assert losses(with_it) == losses(without) == losses(never)
    assert _logged(never, "health/condition") == {}


def test_negative_steps_between_measures_are_refused(tmp_path):
    with pytest.raises(MidwayError, match=r"run\.health_every = -1; give 0 \(never\) or more"):
        run_config(tmp_path, health_every=-1)
