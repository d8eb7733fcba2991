"""A method is one file: the toy trains, resumes, is scored and exported; nothing else changes."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import midway
import midway.methods
from midway.cli import main
from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_segmentation_dataset, write_videos
from midway.experiments.base import Experiment, train
from midway.methods.base import build_method, flops_per_sample, method_config
from midway.train.checkpoint import latest_checkpoint
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

WORLD = WorldConfig(height=48, width=64, num_frames=9, fps=8, num_objects=2)
ON_CPU = ["--run.accelerator", "cpu", "--run.precision", "32-true"]


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Experiment:
    """Train the toy for four steps on videos with actions beside them."""
    monkeypatch.setattr(
        midway.methods, "__path__", [*midway.methods.__path__, str(Path(__file__).parent / "toy")]
    )
    monkeypatch.chdir(tmp_path)
    write_videos("videos", WORLD, seeds=range(3))
    rng = np.random.default_rng(0)
    for video in Path("videos").glob("*.mp4"):
        rows = {"seconds": np.arange(9) / 8, "action": rng.normal(size=(9, 2))}
        np.savez(video.with_suffix(".signals.npz"), **rows)
    return Experiment(
        method=method_config({"name": "toy"}, where="test"),
        data=ClipsConfig(root="videos", gap_seconds=(0.2, 0.4), batch_size=3, num_workers=1),
        optim=OptimConfig(warmup_epochs=0),
        run=RunConfig(
            folder=Path("whole"),
            steps=4,
            precision="32-true",
            accelerator="cpu",
            log_every=1,
            checkpoint_every=2,
        ),
    )


def weights_of(folder: str) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(Path(folder))
    assert checkpoint
    return torch.load(checkpoint, weights_only=True)["model"]


def test_it_trains_and_resumes_bit_for_bit(toy: Experiment) -> None:
    train(toy)
    assert flops_per_sample(toy.method) > 1e5
    shutil.copytree("whole", "parts")
    Path("parts/checkpoints/step_00000004.ckpt").unlink()
    assert main(["train", "--resume", "parts"]) == 0
    whole, parts = weights_of("whole"), weights_of("parts")
    assert all(torch.equal(whole[name], tensor) for name, tensor in parts.items())
    lines = Path("whole/metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert len(set(losses)) == 4


def test_its_encoder_is_scored_exported_and_started_from(
    toy: Experiment, capsys: pytest.CaptureFixture[str]
) -> None:
    train(toy)
    write_segmentation_dataset("labels", WORLD, train_seeds=range(2), val_seeds=range(2, 4))
    scored = ["--network", "whole", "--data.root", "labels", "--data.num-workers", "0", "--json"]
    knn = ["knn_segmentation", "--protocol", "synthetic", "--accelerator", "cpu"]
    linear = ["segmentation", "--protocol", "synthetic-linear", "--run.folder", "linear"]
    linear += [*ON_CPU, "--run.steps", "2", "--data.batch-size", "2", "--data.crop", "32", "32"]
    for words in (knn, linear):
        assert main(["eval", *words, *scored]) == 0
        assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["miou"] <= 100
    assert main(["export", "whole", "encoder.safetensors"]) == 0
    exported = midway.load_encoder("encoder.safetensors").state_dict()
    trained = weights_of("whole")
    assert all(torch.equal(trained[f"encoder.{name}"], t) for name, t in exported.items())
    for start in ("whole", "encoder.safetensors"):
        fresh = build_method(toy.method)
        fresh.start_from(start)
        found = fresh.encoders["student"].state_dict()
        assert all(torch.equal(found[name], tensor) for name, tensor in exported.items())


def test_a_clip_without_its_signal_is_skipped_and_counted(toy: Experiment) -> None:
    Path("videos").joinpath(sorted(p.name for p in Path("videos").glob("*.npz"))[0]).unlink()
    train(replace(toy, data=replace(toy.data, max_bad_share=0.5)))
    (skipped,) = Path("whole/skipped.jsonl").read_text().splitlines()
    assert "cannot be read as signals" in skipped
