"""midway perturb: a picture of heatmaps, one line for what is wrong."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import midway
from midway.analysis.inputs import squares_around
from midway.analysis.perturbation import fast_dtype, perturbation_heatmaps
from midway.cli import main
from midway.nn.images import normalise
from tests.models.networks import random_network


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    rng = np.random.default_rng(0)
    for name, size in (("a", (32, 40)), ("b", (32, 40)), ("small", (32, 32)), ("odd", (35, 61))):
        image = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(image).save(tmp_path / f"{name}.png")
    (tmp_path / "text.png").write_text("no picture")
    torch.manual_seed(0)
    midway.save(random_network(), tmp_path / "net.safetensors")
    return {path.stem: str(path) for path in tmp_path.iterdir()} | {"tmp": str(tmp_path)}


def last_line(capsys) -> dict:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_points_give_a_picture_and_their_hottest_patches(files, tmp_path: Path, capsys):
    out = tmp_path / "out.png"
    words = ["--point", "20,9", "3,30", "--network", files["net"], "-o", str(out), "--json"]
    assert main(["perturb", files["a"], files["b"], *words, "--draws", "3"]) == 0
    found = last_line(capsys)
    assert list(found["levels"]) == ["1", "2", "3"]
    images = [np.asarray(Image.open(files[name])).transpose(2, 0, 1) for name in "ab"]
    source, target = (normalise(torch.tensor(image)[None] / 255) for image in images)
    heatmaps = perturbation_heatmaps(
        midway.load(files["net"]),
        source,
        target,
        level=2,
        tokens=[1 * 5 + 2, 3 * 5],
        num_draws=3,
        dtype=fast_dtype(torch.device("cpu")),
    )[0].flatten(1)
    for heat, reported in zip(heatmaps, found["levels"]["2"], strict=True):
        x, y = reported["hottest"]
        assert int(heat.argmax()) == int(y // 8) * 5 + int(x // 8)
        assert reported["cosine"] == pytest.approx(float(heat.max()), abs=0.02)
    with Image.open(out) as picture:
        outlines = (np.asarray(picture.convert("RGB")) == (0, 0xE0, 0)).all(2)
    assert outlines.any(0).sum() > 4 * 20  # in the source and the targets of three levels


def test_in_a_window_heatmaps_are_those_of_the_cut_images(files, tmp_path: Path, capsys):
    words = ["--network", files["net"], "-o", str(tmp_path / "out.png"), "--json", "--draws", "2"]
    points = ["--point", "36,9", "3,30"]
    assert main(["perturb", files["a"], files["b"], *points, "--window", "16", *words]) == 0
    found = last_line(capsys)["levels"]["2"]
    # Windows around the points, moved into the images of 40 x 32 pixels.
    for place, (left, top), of_window in zip(
        ("12,7", "3,14"), ((24, 2), (0, 16)), found, strict=True
    ):
        for name in "ab":
            box = (left, top, left + 16, top + 16)
            Image.open(files[name]).crop(box).save(tmp_path / f"cut_{name}.png")
        cut = [str(tmp_path / f"cut_{name}.png") for name in "ab"]
        assert main(["perturb", *cut, "--point", place, *words]) == 0
        (of_cut,) = last_line(capsys)["levels"]["2"]
        assert of_window["cosine"] == pytest.approx(of_cut["cosine"], abs=1e-3)
        moved = np.add(of_cut["hottest"], (left, top))
        assert of_window["hottest"] == pytest.approx(moved.tolist())


@pytest.mark.parametrize(("options", "side"), [([], 64), (["--short-side", "32"], 0)])
def test_a_network_of_small_crops_sees_windows_by_default(
    files, tmp_path: Path, monkeypatch, options, side
):
    seen = []

    def cut(images, points, side):
        seen.append(side)
        return squares_around(images, points, side)

    monkeypatch.setattr("midway.cli.perturb.squares_around", cut)
    words = ["--point", "20,9", "--network", files["net"], "-o", str(tmp_path / "out.png")]
    assert main(["perturb", files["a"], files["b"], *words, "--draws", "1", *options]) == 0
    # Two times the training size of 32 pixels.
    assert seen == [side]


def test_a_negative_window_is_one_line(files, capsys):
    words = ["perturb", files["a"], files["b"], "--point", "3,3", "--window", "-1"]
    assert main([*words, "--network", files["net"]]) == 2
    assert "window of -1 pixels: give 1 or more" in capsys.readouterr().err


def test_networks_stand_side_by_side_and_all_are_in_the_json(files, tmp_path: Path, capsys):
    torch.manual_seed(1)
    midway.save(random_network(), tmp_path / "other.safetensors")
    networks, sizes = [files["net"], str(tmp_path / "other.safetensors")], []
    for chosen in (networks[:1], networks):
        out = tmp_path / f"{len(chosen)}.png"
        words = ["--point", "20,9", "--level", "1", "--network", *chosen, "-o", str(out), "--json"]
        assert main(["perturb", files["a"], files["b"], *words]) == 0
        with Image.open(out) as picture:
            sizes.append(picture.size)
    found = last_line(capsys)
    assert list(found["networks"]) == networks
    assert found["levels"] == found["networks"][networks[0]]
    assert sizes[1][0] / sizes[1][1] > 1.2 * sizes[0][0] / sizes[0][1]


def test_images_of_odd_sides_are_fitted_and_places_are_in_their_pixels(files, tmp_path, capsys):
    words = ["--point", "60,34", "--network", files["net"], "-o", str(tmp_path / "o.png"), "--json"]
    assert main(["perturb", files["odd"], files["odd"], *words, "--level", "3"]) == 0
    (found,) = last_line(capsys)["levels"]["3"]
    x, y = found["hottest"]
    # 35 x 61 pixels become 4 x 7 patches: middles are at (k + 1/2) of 61 / 7 and 35 / 4.
    for place in ((x + 0.5) / (61 / 7) - 0.5, (y + 0.5) / (35 / 4) - 0.5):
        assert place == pytest.approx(round(place), abs=1e-4)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{a}", "{b}", "--point", "40,3"], "point 40,3 is outside the image of 40 x 32 pixels"),
        (["{a}", "{b}", "--point", "3"], "point '3': is not X,Y"),
        (["{a}", "{b}", "--point", "3,x"], "point '3,x': is not X,Y"),
        (["{a}", "{b}", "--point"], "--point: no point; give X,Y"),
        (["{a}", "{b}"], "--point"),
        (["{a}", "{b}", "--point", "3,3", "--level", "4"], "level 4 has no forward model"),
        (["{a}", "{b}", "--point", "3,3", "--draws", "0"], "0 draws: give 1 or more"),
        (["{a}", "{b}", "--point", "3,3", "--network"], "--network"),
        (["{a}", "{small}", "--point", "3,3"], "images differ in size"),
        (["{a}", "{text}", "--point", "3,3"], "cannot be read as an image"),
        (["{a}", "{tmp}/none.png", "--point", "3,3"], "none.png: no such file; check the path"),
        (["{a}", "{b}", "--point", "3,3", "-o", "{tmp}/x.flo"], "is not an image format"),
        (["{a}", "{b}", "--point", "3,3", "-o", "{tmp}/no/x.png"], "no folder"),
        (["{a}", "{b}", "--point", "3,3", "-o", "{a}"], "is an input and would be overwritten"),
        (["{a}", "{b}", "--point", "3,3", "--network", "{tmp}/none.pth"], "no such file or folder"),
    ],
)
def test_what_is_wrong_is_one_line(files, tmp_path: Path, capsys, words, message):
    given = [word.format(**files) for word in words]
    if "--network" not in words:
        given += ["--network", files["net"]]
    if "-o" not in words:
        given += ["-o", str(tmp_path / "x.png")]
    assert main(["perturb", *given]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.glob("x.*"))
