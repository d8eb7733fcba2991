"""PooDLe from videos with recorded flow to scores: trained, evaluated and exported."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import midway
from midway.cli import main
from midway.data.sampling.samples import ClipsConfig
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_segmentation_dataset, write_videos
from midway.experiments.base import Experiment, train
from midway.methods.base import build_method
from midway.methods.poodle import PoodleConfig
from midway.models.flow.external import FlowConfig
from midway.train.checkpoint import latest_checkpoint
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

WORLD = WorldConfig(height=48, width=64, num_frames=9, fps=8, num_objects=2)
ON_CPU = ["--run.accelerator", "cpu", "--run.precision", "32-true"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train four steps on videos with the exact flow of the worlds beside them."""
    folder = tmp_path_factory.mktemp("poodle")
    write_videos(folder / "videos", WORLD, seeds=range(3), recorded_gap_seconds=0.25)
    train(
        Experiment(
            method=replace(
                PoodleConfig.tiny(),
                flow=FlowConfig(source="recorded", recorded_size=(48, 64)),
                frame_area=(1.0, 1.0),
            ),
            data=ClipsConfig(
                root=str(folder / "videos"),
                gap_seconds=(0.25, 0.25),
                batch_size=3,
                num_workers=0,
            ),
            optim=OptimConfig(warmup_epochs=0, final_lr=0.0, scale_lr=False),
            run=RunConfig(
                folder=folder / "whole",
                steps=4,
                precision="32-true",
                accelerator="cpu",
                log_every=1,
                health_every=2,
            ),
        )
    )
    return folder


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = latest_checkpoint(folder)
    assert checkpoint
    return torch.load(checkpoint, weights_only=True)["model"]


def test_recorded_flow_makes_most_points_visible(run: Path) -> None:
    records = [json.loads(line) for line in (run / "whole/metrics.jsonl").read_text().splitlines()]
    assert all(record["visible_share"] > 0.4 for record in records if "visible_share" in record)
    assert any("health/rank_5" in record for record in records)


def test_backbone_and_decoder_are_scored_and_exported(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_segmentation_dataset("labels", WORLD, train_seeds=range(2), val_seeds=range(2, 4))
    scored = ["--data.root", "labels", "--data.num-workers", "0", "--json"]
    scored += ["--network", str(run / "whole")]
    knn = ["knn_segmentation", "--protocol", "synthetic", "--accelerator", "cpu"]
    linear = ["segmentation", "--protocol", "synthetic-linear", "--run.folder", "linear"]
    linear += [*ON_CPU, "--run.steps", "2", "--data.batch-size", "2", "--data.crop", "32", "32"]
    for words in ([*knn, "--weights", "teacher_decoder"], [*linear, "--weights", "student"]):
        assert main(["eval", *words, *scored]) == 0
        assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["miou"] <= 100
    name = ["export", str(run / "whole"), "decoder.safetensors", "--weights", "teacher_decoder"]
    assert main(name) == 0
    exported = midway.load_encoder("decoder.safetensors").state_dict()
    trained = weights_of(run / "whole")
    assert all(torch.equal(trained[f"teacher.encoder.{n}"], t) for n, t in exported.items())
    # Another run starts from the backbone of this one.
    fresh = build_method(PoodleConfig.tiny())
    fresh.start_from(str(run / "whole"))
    found = fresh.encoders["student"].state_dict()
    assert all(torch.equal(t, trained[f"teacher.encoder.backbone.{n}"]) for n, t in found.items())
