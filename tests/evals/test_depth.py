"""The depth probe runs from its command, learns, and resumes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from midway.cli import main
from midway.data.depth.images import DepthData, find_depth
from midway.evals.depth import config_from_json, is_scored
from midway.evals.readouts.depth_protocols import nyu_linear
from midway.models.weights.save import save
from tests.data.depth.made_nyu import write_nyu
from tests.models.networks import random_network

TOY = [
    *("--data.crop", "32", "48", "--data.batch-size", "4", "--data.num-workers", "0"),
    *("--readout.levels", "1", "4", "--readout.bins", "16", "--optim.warmup-steps", "0"),
    *("--run.precision", "32-true", "--run.accelerator", "cpu", "--run.log-every", "1"),
    *("--num-pictures", "1"),
]


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("depth")
    torch.manual_seed(0)
    save(random_network(), folder / "net.safetensors")
    write_nyu(folder / "nyu", train=12)
    return folder


def run(place, folder, *words):
    where = ["--network", str(place / "net.safetensors"), "--data.root", str(place / "nyu")]
    command = ["eval", "depth", "--protocol", "nyu-linear", *where, *TOY]
    return main([*command, "--run.folder", str(folder), *words])


def test_it_learns_that_bright_is_far(place, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(place, folder, "--run.steps", "120", "--optim.lr", "0.05", "--json") == 0
    results = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert results == json.loads((folder / "results.json").read_text())
    truth = [
        each.read()[1][1:, 1:] for each in find_depth(DepthData(root=str(place / "nyu")), "val")
    ]
    constant = np.mean([np.sqrt(((depth - 5) ** 2).mean()) for depth in truth])
    assert results["rmse"] < 0.95 * constant
    assert results["images"] == {"train": 12, "test": 2}
    assert len(results["weights_sha256"]) == 64
    (picture,) = (folder / "pictures").iterdir()
    assert picture.name == "office_0000_rgb_00000.png"
    with Image.open(picture) as opened:
        assert opened.width > 1000


def test_a_run_that_is_done_scores_again_and_refuses_another_network(place, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(place, folder, "--run.steps", "2") == 0
    first = json.loads((folder / "results.json").read_text())
    assert main(["eval", "depth", "--resume", str(folder)]) == 0
    again = json.loads((folder / "results.json").read_text())
    assert [again[name] for name in ("rmse", "abs_rel", "delta1")] == [
        first[name] for name in ("rmse", "abs_rel", "delta1")
    ]
    assert "RMSE" in capsys.readouterr().out
    config = config_from_json(json.loads((folder / "config.json").read_text()), where="config.json")
    assert config.run.steps == 2


def test_wrong_data_is_an_error_before_the_training(place, tmp_path, capsys):
    assert run(place, tmp_path / "run", "--data.root", str(tmp_path)) == 2
    assert "not the layout of NYU Depth v2" in capsys.readouterr().err
    assert run(place, tmp_path / "run", "--data.max-metres", "0.5") == 2
    assert "has a depth up to 0.5 m; check" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_crop_of_eigen_applies_to_images_of_nyu():
    depth = np.ones((480, 640), np.float32)
    mask = is_scored(depth, DepthData())
    assert mask.sum() == 426 * 560
    assert mask[45, 41]
    assert not mask[44, 41]
    assert is_scored(depth, DepthData(eigen_crop=False)).all()
    assert is_scored(depth[:100], DepthData()).all()


def test_the_version_is_of_what_is_measured():
    config = nyu_linear()
    moved = replace(config, data=replace(config.data, root="elsewhere", num_workers=1))
    assert moved.version() == config.version()
    nearer = replace(config, data=replace(config.data, max_metres=8.0))
    assert nearer.version() != config.version()
