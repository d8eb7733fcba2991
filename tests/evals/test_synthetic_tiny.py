"""Motion has emerged in the network that comes with the package (docs/MOTION.md)."""

from pathlib import Path

import pytest
import torch

from midway.data.synthetic.pairs import WorldPairs
from midway.errors import MidwayError
from midway.evals.correspondence import HeatmapConfig, score_heatmaps
from midway.evals.latents import exchanged_losses
from midway.experiments.motion import THINGS
from midway.models.midway import MidwayNetwork
from midway.models.weights.files import BUNDLED
from midway.models.weights.load import load

WORLDS = WorldPairs(world=THINGS, num_worlds=12, pairs_per_world=2)
"""Their seeds are those of no run."""


def _moving(network: MidwayNetwork) -> dict[str, dict[str, float]]:
    scores, _ = score_heatmaps(network, WORLDS.examples(), HeatmapConfig(num_draws=4))
    (level,) = scores.values()
    return level["moving"]


def test_its_heatmaps_lean_towards_where_things_went() -> None:
    moving = _moving(load("synthetic-tiny"))
    assert moving["heatmap"]["near"] > 2 * moving["chance"]
    assert moving["heatmap"]["near"] > moving["still"]["near"]
    assert moving["heatmap"]["lean"] > 0.65


def test_before_training_they_stay_at_the_start() -> None:
    torch.manual_seed(0)
    moving = _moving(MidwayNetwork(load("synthetic-tiny").config))
    assert moving["heatmap"]["near"] < 0.05
    assert moving["heatmap"]["lean"] < 0.65


def test_its_latents_hold_motion_and_little_of_the_looks() -> None:
    (losses,) = exchanged_losses(load("synthetic-tiny"), WORLDS).values()
    own, alike, other = (losses[name].mean() for name in ("own", "alike", "other_motion"))
    assert (other - alike) / (other - own) > 0.5


def test_it_is_found_from_anywhere_and_gives_way_to_a_folder_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert load("synthetic-tiny").config.dynamics.levels == (1,)
    (tmp_path / "synthetic-tiny").mkdir()
    with pytest.raises(MidwayError, match=r"no checkpoints"):
        load("synthetic-tiny")


def test_it_takes_five_megabytes_at_most() -> None:
    assert (BUNDLED / "synthetic-tiny.safetensors").stat().st_size <= 5e6
