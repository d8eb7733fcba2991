"""Encoders of all methods go through segmentation and flow finetuning without special cases."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midway.cli import main
from midway.config import to_json
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_flow_dataset, write_segmentation_dataset
from midway.errors import MidwayError
from midway.evals.flow_finetune import finetune
from midway.evals.readouts.flow_protocols import FinetuneConfig, StartConfig, synthetic
from midway.methods.base import MethodConfig, build_method
from midway.methods.poodle import PoodleConfig
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.poodle import SpatialDecoderConfig
from midway.models.flow.base import DptConfig
from midway.models.vit_config import EncoderConfig
from midway.registry import find
from midway.train.checkpoint import save_checkpoint
from midway.train.optim import AdamW, OptimConfig

from .short_runs import METHODS

pytestmark = pytest.mark.slow
SIZE = (64, 64)
WORLD = WorldConfig(height=SIZE[0], width=SIZE[1], num_frames=3, fps=10, num_objects=2)
FRESH = DynamicsConfig(
    levels=(1, 3),
    midway_width=24,
    midway_depth=1,
    num_latents=2,
    forward_depth=1,
    backward_heads=3,
    forward_heads=3,
)


@pytest.fixture(scope="module")
def labels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("labels")
    write_segmentation_dataset(folder, WORLD, train_seeds=range(2), val_seeds=range(2, 4))
    return folder


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pairs")
    write_flow_dataset(folder / "train", WORLD, seeds=range(1))
    return folder


def a_run(config: MethodConfig, folder: Path) -> Path:
    """The checkpoint of a method that was not trained."""
    torch.manual_seed(0)
    method = build_method(config)
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"method": to_json(config)}))
    optimizer = AdamW(method, method.parameter_groups(), OptimConfig())
    scaler = torch.amp.GradScaler(enabled=False)
    save_checkpoint(folder, step=1, objective=method, optimizer=optimizer, scaler=scaler, keep=1)
    return folder


@pytest.mark.parametrize("name", METHODS)
def test_it_is_scored_by_neighbours_and_by_a_linear_readout(
    name: str, labels: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = a_run(tiny(name), tmp_path / "run")
    scored = ["--network", str(run), "--weights", "student", "--data.root", str(labels)]
    scored += ["--data.num-workers", "0", "--json"]
    knn = ["knn_segmentation", "--protocol", "synthetic", "--accelerator", "cpu"]
    linear = ["segmentation", "--protocol", "synthetic-linear", "--run.steps", "1"]
    linear += ["--run.folder", str(tmp_path / "linear"), "--run.accelerator", "cpu"]
    linear += ["--run.precision", "32-true", "--data.batch-size", "2", "--data.crop", "64", "64"]
    for words in (knn, linear):
        assert main(["eval", *words, *scored]) == 0
        assert 0 <= json.loads(capsys.readouterr().out.splitlines()[-1])["miou"] <= 100


@pytest.mark.parametrize("name", METHODS)
def test_flow_is_finetuned_from_it(name: str, pairs: Path, tmp_path: Path) -> None:
    config = tiny(name)
    if isinstance(config, PoodleConfig):
        # Dynamics need levels of one width, which its ResNet does not have.
        with pytest.raises(
            MidwayError, match=r"of a resnet differ in width or stride, .*; take a ViT"
        ):
            finetune(flow_from(a_run(config, tmp_path / "resnet"), pairs))
        vit = EncoderConfig.tiny()
        encoder = SpatialDecoderConfig(backbone="vit", vit=vit, laterals=(2,))
        config = replace(config, encoder=encoder)
    # Midway's dynamics and CroCo's decoder are its own; the others get fresh dynamics.
    dynamics = DynamicsConfig() if name in ("midway", "croco") else FRESH
    assert finetune(flow_from(a_run(config, tmp_path / "run"), pairs, dynamics)).steps == 1


def flow_from(run: Path, pairs: Path, dynamics: DynamicsConfig = FRESH) -> FinetuneConfig:
    """One step of finetuning from a run."""
    preset = synthetic()
    return replace(
        preset,
        start=StartConfig(network=str(run), dynamics=dynamics),
        data=replace(
            preset.data, root=pairs, crop=SIZE, augment=False, batch_size=2, num_workers=0
        ),
        validation=replace(preset.validation, parts=preset.data.parts, every_steps=1),
        dpt=DptConfig(widths=(8, 8, 8, 8), fused_width=8, last_width=8),
        run=replace(preset.run, folder=run / "flow", steps=1, log_every=1),
    )


def tiny(name: str) -> MethodConfig:
    return find("midway.methods", name).METHOD.Config.tiny()
