"""Runs of the methods that mask clips: they resume bit for bit, and serve the evaluations."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.experiments.base import experiment_from_json, experiments, train
from midway.models.weights.sources import load_encoder


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, WorldConfig(height=48, width=64, num_frames=20), seeds=range(2))
    return folder


@pytest.mark.parametrize("name", ["synthetic.croco_tiny", "synthetic.videomae_tiny"])
def test_a_resumed_run_equals_an_uninterrupted_one(videos: Path, tmp_path: Path, name: str) -> None:
    base = experiments()[name]()
    small = replace(base.data, root=str(videos), batch_size=4, num_workers=0)
    changes = {"steps": 3, "log_every": 1, "checkpoint_every": 1, "keep_checkpoints": 3}
    for folder in ("whole", "halved"):
        run = replace(base.run, folder=tmp_path / folder, health_every=1, **changes)
        train(replace(base, data=small, run=run))
    for step in (2, 3):
        (tmp_path / "halved" / "checkpoints" / f"step_{step:08d}.ckpt").unlink()
    values = json.loads((tmp_path / "halved" / "config.json").read_text())
    train(experiment_from_json(values, where="config.json"), resume=True)
    losses, weights = [], []
    for folder in ("whole", "halved"):
        lines = (tmp_path / folder / "metrics.jsonl").read_text().splitlines()
        losses.append([json.loads(line)["loss"] for line in lines])
        weights.append(load_encoder(str(tmp_path / folder)).state_dict())
    assert losses[0] == losses[1]
    assert len(losses[0]) == 3
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
