"""Every protocol runs from its command; a stopped readout ends like one that was not."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from midway.cli import main
from midway.data.segmentation.loader import SegmentationLoader
from midway.evals.readouts.segmentation_pictures import shown_indices
from midway.evals.readouts.segmentation_protocols import PROTOCOLS
from midway.models.weights.save import save
from tests.data.segmentation.labelled_folders import write_dummy
from tests.models.networks import random_network

TOY = [
    *("--data.crop", "48", "64", "--data.scale", "80", "48", "--data.batch-size", "2"),
    *("--data.test-scale", "native", "--data.num-workers", "0"),
    *("--readout.levels", "1", "2", "3", "4"),
    *("--inference.window", "40", "40", "--inference.stride", "24", "24"),
    *("--run.steps", "20", "--run.precision", "32-true", "--run.accelerator", "cpu"),
    *("--optim.warmup-steps", "5", "--run.log-every", "1", "--num-pictures", "1"),
]
EXTRA = {"wt-sem-upernet": ["--data.label-offset", "1"]}


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """A network and a dummy of every dataset."""
    folder = tmp_path_factory.mktemp("segmentation")
    torch.manual_seed(0)
    save(random_network(), folder / "net.safetensors")
    for kind in ("bdd100k", "cityscapes", "ade20k", "wt_sem", "camvid", "synthetic"):
        write_dummy(kind, folder / kind, train=4, val=2)
    write_dummy("synthetic", folder / "folder", train=4, val=2)
    (folder / "folder/classes.txt").write_text("".join(f"class {n}\n" for n in range(6)))
    return folder


def run(place: Path, protocol: str, folder: Path, *words: str) -> int:
    dataset = PROTOCOLS[protocol]().data.dataset
    where = ["--network", str(place / "net.safetensors"), "--data.root", str(place / dataset)]
    if dataset == "folder":
        where += ["--data.classes", str(place / "folder/classes.txt")]
    command = ["eval", "segmentation", "--protocol", protocol, *where, *TOY]
    return main([*command, *EXTRA.get(protocol, []), "--run.folder", str(folder), *words])


def results_of(folder: Path) -> dict:
    results = json.loads((folder / "results.json").read_text())
    for name in ("seconds", "folder", "date", "environment"):
        del results[name]
    return results


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_every_protocol_runs_from_one_command(protocol, place, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(place, protocol, folder, "--json") == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    results = json.loads((folder / "results.json").read_text())
    assert results == printed
    assert results["protocol"]["name"] == protocol
    assert (results["steps"], results["seed"]) == (20, 0)
    assert 0 <= results["miou"] <= 100
    assert len(results["checkpoint_sha256"]) == 64
    assert results["images"] == {"train": 4, "test": 2}
    with Image.open(folder / "confusion.png") as picture:
        assert picture.format == "PNG"
    assert len([*(folder / "pictures").glob("*.png")]) == 1
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 20
    assert json.loads((folder / "config.json").read_text())["protocol"] == protocol


def test_a_readout_learns_what_is_in_the_images(place, tmp_path):
    words = ["--optim.lr", "0.01", "--run.steps", "150", "--optim.warmup-steps", "0"]
    words += ["--data.no-distort"]
    assert run(place, "synthetic-linear", tmp_path / "run", *words) == 0
    # Blocks of six classes in six shades of grey; a guess is right once in six.
    assert results_of(tmp_path / "run")["accuracy"] > 40


@pytest.mark.parametrize("protocol", ["camvid-linear", "ade20k-upernet"])
def test_stopped_and_resumed_it_ends_like_one_that_was_not(
    protocol, place, tmp_path, monkeypatch, capsys
):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    words = ["--run.steps", "6", "--run.checkpoint-every", "2", "--optim.lr", "0.01"]
    assert run(place, protocol, whole, *words) == 0
    batches = SegmentationLoader.batches

    def stopping(self, start, stop):
        for step, batch in enumerate(batches(self, start, stop)):
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)
            yield batch

    monkeypatch.setattr(SegmentationLoader, "batches", stopping)
    assert run(place, protocol, stopped, *words) == 3
    assert "continue with --resume" in capsys.readouterr().out
    monkeypatch.undo()

    def killed(self, start, stop):
        yield from batches(self, start, start + 2)
        raise KeyboardInterrupt

    monkeypatch.setattr(SegmentationLoader, "batches", killed)
    again = ["eval", "segmentation", "--resume", str(stopped)]
    assert main(again) == 130
    monkeypatch.undo()
    assert main(again) == 0
    assert results_of(stopped) == results_of(whole)
    states = [
        torch.load(folder / "checkpoints" / "step_00000006.ckpt", weights_only=True)["model"]
        for folder in (whole, stopped)
    ]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    # Once more with nothing left to train it only scores.
    assert main(again) == 0
    assert results_of(stopped) == results_of(whole)


def test_a_resumed_readout_refuses_a_network_that_changed(place, tmp_path, capsys):
    torch.manual_seed(0)
    net = tmp_path / "net.safetensors"
    save(random_network(), net)
    assert run(place, "camvid-linear", tmp_path / "run", "--network", str(net)) == 0
    torch.manual_seed(1)
    save(random_network(), net)
    assert main(["eval", "segmentation", "--resume", str(tmp_path / "run")]) == 2
    assert "its weights are not those this readout began with" in capsys.readouterr().err


def test_pictures_show_image_truth_prediction_and_error(place, tmp_path):
    assert run(place, "camvid-linear", tmp_path / "run", "--num-pictures", "2") == 0
    paths = sorted((tmp_path / "run" / "pictures").iterdir())
    assert [path.name for path in paths] == ["a0000.png", "b0001.png"]
    with Image.open(paths[0]) as picture:
        assert min(picture.size) > 400
        assert len(np.unique(np.asarray(picture.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_pictures_are_spread_over_the_set():
    assert shown_indices(100, 4) == {0, 25, 50, 75}
    assert shown_indices(2, 8) == {0, 1}
    assert shown_indices(5, 0) == set()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no protocol; give --protocol and one of bdd100k-linear"),
        (["--protocol", "bdd-linear"], "no protocol 'bdd-linear'; give"),
        (["--protocol=camvid-linear"], "no network: give a run folder"),
        (["--protocol", "camvid-linear", "--network", "random"], "data.root is not set"),
        (["--protocol", "camvid-linear", "--data.rot", "x"], "did you mean --data.root?"),
        (["--protocol"], "--protocol: has no value; give one"),
        (["--resume", "nowhere"], "nowhere/config.json: cannot be read"),
    ],
)
def test_wrong_words_are_told_in_one_line(words, message, capsys):
    assert main(["eval", "segmentation", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_the_other_readings_of_the_protocol_are_options(place, tmp_path):
    words = ["--features", "backward", "--weights", "student", "--readout.levels", "1"]
    words += ["--data.test-scale", "160", "96", "--inference.mode", "whole", "--run.steps", "1"]
    assert run(place, "bdd100k-linear", tmp_path / "run", *words) == 0
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["data"]["test_scale"] == [160, 96]
    assert config["encoder"]["features"] == "backward"
    assert results_of(tmp_path / "run")["encoder"]["weights"] == "student"


def test_a_level_that_there_is_not_leaves_no_folder_behind(place, tmp_path, capsys):
    folder = tmp_path / "run"
    assert run(place, "camvid-linear", folder, "--readout.levels", "12") == 2
    assert "the encoder has levels 1 to 4; choose from those, such as " in capsys.readouterr().err
    assert not folder.exists()


def test_test_labels_of_a_wrong_kind_are_told_before_training(place, tmp_path, capsys):
    write_dummy("camvid", tmp_path / "camvid", train=2, val=2)
    for path in (tmp_path / "camvid" / "testannot").iterdir():
        Image.new("L", (80, 48), 77).save(path)
    folder = tmp_path / "run"
    assert run(place, "camvid-linear", folder, "--data.root", str(tmp_path / "camvid")) == 2
    assert "label value 77" in capsys.readouterr().err
    assert not folder.exists()


@pytest.mark.parametrize("split", ["train", "test"])
def test_labels_that_are_all_ignored_are_an_error_before_training(split, place, tmp_path, capsys):
    write_dummy("camvid", tmp_path / "camvid", train=2, val=2)
    for path in (tmp_path / "camvid" / f"{split}annot").iterdir():
        Image.new("L", (80, 48), 11).save(path)
    folder = tmp_path / "run"
    assert run(place, "camvid-linear", folder, "--data.root", str(tmp_path / "camvid")) == 2
    assert "no pixel of it or of 1 other label has a class" in capsys.readouterr().err
    assert not folder.exists()


def test_the_papers_linear_readout_refuses_an_encoder_without_dynamics(place, tmp_path, capsys):
    assert run(place, "bdd100k-linear", tmp_path / "run", "--network", "random:vit") == 2
    assert "has no backward features; take --features encoder" in capsys.readouterr().err


def test_a_resumed_readout_refuses_a_class_list_that_changed(place, tmp_path, capsys):
    classes = tmp_path / "classes.txt"
    classes.write_text("".join(f"class {n}\n" for n in range(6)))
    words = ["--data.classes", str(classes), "--run.steps", "1"]
    assert run(place, "folder-linear", tmp_path / "run", *words) == 0
    again = ["eval", "segmentation", "--resume", str(tmp_path / "run")]
    assert main(again) == 0
    classes.write_text("".join(f"class {5 - n}\n" for n in range(6)))
    assert main(again) == 2
    assert "classes.txt: its classes are not those of" in capsys.readouterr().err


def test_the_version_of_own_labels_follows_the_contents_of_the_list(place, tmp_path):
    config = PROTOCOLS["folder-linear"]()
    text = "".join(f"class {n}\n" for n in range(6))
    versions = []
    for name, changed in (("a", text), ("b", text), ("c", text.replace("class 5", "other"))):
        path = tmp_path / f"{name}.txt"
        path.write_text(changed)
        data = replace(config.data, classes=str(path))
        versions.append(replace(config, data=data).version())
    assert versions[0] == versions[1] != versions[2]


@pytest.mark.slow
def test_two_processes_train_and_score_like_one(place, tmp_path):
    words = ["--run.steps", "3", "--optim.lr", "0.01", "--data.batch-size", "4"]
    assert run(place, "camvid-linear", tmp_path / "one", *words) == 0
    # Behind `--` torchrun does not take `--run` for an abbreviation of its own options.
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "--"]
    where = ["--network", str(place / "net.safetensors"), "--data.root", str(place / "camvid")]
    command = ["midway.cli", "eval", "segmentation", "--protocol", "camvid-linear", *where]
    folder = ["--run.folder", str(tmp_path / "two")]
    subprocess.run(
        [sys.executable, *launcher, *command, *TOY, *words, *folder],
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
        timeout=200,
        check=True,
        capture_output=True,
    )
    one, two = results_of(tmp_path / "one"), results_of(tmp_path / "two")
    pixels = [[row["pixels"] for row in each["classes"].values()] for each in (one, two)]
    assert pixels[0] == pixels[1]
    assert two["miou"] == pytest.approx(one["miou"], abs=0.5)
    assert two["protocol"] == one["protocol"]
