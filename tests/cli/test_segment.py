"""`midway segment` writes the masks that the readout's evaluation scored, and overlays."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from midway.cli import main
from midway.data.segmentation.class_files import read_dataset
from midway.data.segmentation.find import find_labelled
from midway.data.segmentation.images import SegmentationData
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.evals.readouts.segmentation_masks import MAX_NAMED, boundaries, overlay, with_legend
from midway.evals.readouts.segmentation_run import CLASSES, load_readout
from midway.models.weights.save import save
from tests.data.segmentation.labelled_folders import write_dummy
from tests.evals.test_segmentation import TOY
from tests.models.networks import random_network

NAMES = ("ground", 'red 5"', "green", "blue", "disc", "star")
LISTS = {
    "ids": "\n".join(f"{name},{10 * number}" for number, name in enumerate(NAMES)),
    "colours": "\n".join(f"{name},{30 * n},{n},{255 - n}" for n, name in enumerate(NAMES)),
}


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Own labels by id and by colour, with a readout of each; network and data are gone."""
    folder = tmp_path_factory.mktemp("own")
    torch.manual_seed(0)
    save(random_network(), folder / "net.safetensors")
    for kind, text in LISTS.items():
        root = folder / kind
        write_dummy("synthetic", root, train=2, val=2)
        (folder / f"{kind}.txt").write_text(text)
        table = np.zeros((256, 3), np.uint8)
        for number in range(len(NAMES)):
            table[number] = (30 * number, number, 255 - number)
        for path in root.glob("labels/*/*.png"):
            classes = np.asarray(Image.open(path))
            changed = 10 * classes if kind == "ids" else table[classes]
            Image.fromarray(changed).save(path)
        words = ["--network", str(folder / "net.safetensors"), "--data.root", str(root)]
        words += ["--data.classes", str(folder / f"{kind}.txt"), *TOY, "--run.steps", "2"]
        words += ["--run.folder", str(folder / f"run {kind}")]
        assert main(["eval", "segmentation", "--protocol", "folder-linear", *words]) == 0
    (folder / "net.safetensors").unlink()
    shutil.copytree(folder / "ids/images/val", folder / "images")
    return folder


@pytest.mark.parametrize("kind", LISTS)
def test_masks_score_as_the_evaluation_did_and_are_labels_of_the_same_list(kind, place, tmp_path):
    out, run = tmp_path / "out", place / f"run {kind}"
    command = ["segment", str(place / "images"), "--network", str(run), "-o", str(out)]
    assert main(command) == 0
    # As a dataset with the user's class list: the masks are read by the same ids or colours.
    root = tmp_path / "again"
    shutil.copytree(place / "images", root / "images/val")
    shutil.copytree(out / "masks", root / "masks/val")
    classes = place / f"{kind}.txt"
    data = SegmentationData(dataset="folder", root=str(root), classes=str(classes))
    written = find_labelled(data, "val")
    truth = find_labelled(
        SegmentationData(dataset="folder", root=str(place / kind), classes=str(classes)), "val"
    )
    pairs = [(written.read(n)[1], truth.read(n)[1]) for n in range(2)]
    right = 100 * np.mean([mask == labels for mask, labels in pairs])
    scored = json.loads((run / "results.json").read_text())["accuracy"]
    assert right == pytest.approx(scored, abs=1e-3)
    listed, own = (read_dataset(str(p)).classes for p in (out / "classes.toml", classes))
    assert listed.gives_same(own)
    assert listed.painted() == own.painted()


def test_overlays_show_image_and_legend(place, tmp_path, capsys):
    out = tmp_path / "out"
    image = sorted((place / "images").iterdir())[0]
    command = ["segment", str(image), "--network", str(place / "run ids"), "-o", str(out)]
    assert main([*command, "--opacity", "0", "--json"]) == 0
    printed = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert printed["images"] == 1
    assert sum(printed["percent"].values()) == pytest.approx(100)
    mask = np.asarray(Image.open(out / "masks" / f"{image.stem}.png"))
    drawn = np.asarray(Image.open(out / "overlays" / f"{image.stem}.png"))
    source = np.asarray(Image.open(image).convert("RGB"))
    assert drawn.shape[0] > source.shape[0] == mask.shape[0]
    kept = drawn[: source.shape[0]][~boundaries(mask)]
    np.testing.assert_array_equal(kept, source[~boundaries(mask)])


def test_an_overlay_has_the_colours_of_classes_and_white_outlines(place):
    classes = load_readout(place / "run colours", torch.device("cpu")).classes
    predicted = np.array([[0, 0, 3], [0, 0, 3]], np.uint8)
    drawn = overlay(np.zeros((2, 3, 3), np.uint8), predicted, classes, 1.0)
    assert drawn[:, 0].tolist() == [[0, 0, 255]] * 2
    assert drawn[:, 1].tolist() == [[255, 255, 255]] * 2
    assert drawn[:, 2].tolist() == [[90, 3, 252]] * 2
    assert with_legend(drawn, classes, []) is drawn
    assert len(NAMES) <= MAX_NAMED


def test_a_video_gives_masks_of_its_frames_and_a_video(place, tmp_path):
    write_videos(tmp_path, WorldConfig(height=48, width=64, num_frames=4), seeds=[0])
    (video,) = tmp_path.glob("*.mp4")
    out = tmp_path / "out"
    command = ["segment", str(video), "--network", str(place / "run ids"), "-o", str(out)]
    assert main(command) == 0
    assert [path.name for path in sorted((out / "masks" / video.stem).iterdir())] == [
        f"{number:06d}.png" for number in range(4)
    ]
    assert (out / "overlays" / f"{video.stem}.mp4").stat().st_size > 0


@pytest.mark.parametrize(
    ("images", "words", "message"),
    [
        (["nothing.png"], [], "nothing.png: no such file; check the path"),
        (["classes.txt"], [], "classes.txt: is neither image nor video; leave it out"),
        (["empty"], [], "empty: no image in it; give images, folders of images or videos"),
        (["a.png", "empty/../a.png"], [], "would have the same mask as"),
        (["out/overlays/a.png"], [], "is among the overlays of -o; give another -o"),
        (["a.png"], ["--opacity", "2"], "--opacity 2: give a number from 0 to 1"),
        (["a.png"], ["--fps", "-1"], "--fps -1: give a rate, or 0 for all frames"),
        (["a.png"], ["--network", "."], ".: is not the run folder of a segmentation readout; tra"),
    ],
)
def test_wrong_words_are_one_line(images, words, message, place, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "out/overlays"):
        (tmp_path / name).mkdir(parents=True)
    for name in ("a.png", "out/overlays/a.png"):
        Image.new("RGB", (16, 16)).save(tmp_path / name)
    (tmp_path / "classes.txt").touch()
    network = [] if "--network" in words else ["--network", str(place / "run ids")]
    assert main(["segment", *images, *network, "-o", "out", *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err
    assert printed.err.count("\n") == 1


def test_a_run_without_classes_is_of_a_published_dataset(place, tmp_path):
    write_dummy("camvid", tmp_path / "camvid", train=2, val=2)
    torch.manual_seed(0)
    save(random_network(), tmp_path / "net.safetensors")
    words = [
        "--network",
        str(tmp_path / "net.safetensors"),
        "--data.root",
        str(tmp_path / "camvid"),
    ]
    words += [*TOY, "--run.steps", "1", "--run.folder", str(tmp_path / "run")]
    assert main(["eval", "segmentation", "--protocol", "camvid-linear", *words]) == 0
    kept = load_readout(tmp_path / "run", torch.device("cpu")).classes
    (tmp_path / "run" / CLASSES).unlink()
    assert load_readout(tmp_path / "run", torch.device("cpu")).classes == kept
