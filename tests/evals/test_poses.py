"""Camera motion is read from the latents of the packaged network, and not from fresh ones."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from midway.cli import main
from midway.data.synthetic.world import World
from midway.experiments.motion import PAN
from midway.models.weights.save import save
from tests.models.networks import random_network

NUM_FRAMES = 30
PIXELS_PER_METRE = 4.0
ON_CPU = ["--accelerator", "cpu", "--draws", "200"]


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """A camera that pans along a backdrop, as the network has seen in training."""
    folder = tmp_path_factory.mktemp("posed")
    (folder / "frames").mkdir()
    world, lines = World(PAN, 1_000_000), []
    for number in range(NUM_FRAMES):
        seconds = number / 2
        image = Image.fromarray(world.frame(seconds).image)
        image.save(folder / "frames" / f"{number:06d}.png")
        # The backdrop moves to the left if the camera moves to the right.
        x = -world.camera_motion(0, seconds)[0] / PIXELS_PER_METRE
        lines.append(" ".join(map(str, [1, 0, 0, x, 0, 1, 0, 0, 0, 0, 1, 0])))
    (folder / "poses.txt").write_text("\n".join(lines) + "\n")
    return ["--frames", str(folder / "frames"), "--poses", str(folder / "poses.txt")]


def test_latents_of_a_network_with_motion_predict_the_camera(
    video: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "poses", "--network", "synthetic-tiny", *video, *ON_CPU, "--tiles", "1"]
    assert main([*words, "--folder", str(tmp_path), "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    assert results == json.loads((tmp_path / "results.json").read_text())
    # Both orders of the pairs within five parts of six frames.
    assert (results["num_frames"], results["pairs"]) == (NUM_FRAMES, 2 * 5 * 5)
    lateral = {name: arm["lateral"] for name, arm in results["arms"].items()}
    assert lateral["latents"]["interval"][1] < 0.8
    assert lateral["flow"]["ratio"] < 0.8
    for name in ("untrained_latents", "untrained_features", "pixels"):
        assert 0.9 < lateral[name]["ratio"] < 1.3
    # The camera does not move ahead: there is no error to compare with.
    assert results["arms"]["latents"]["forward"]["ratio"] is None
    assert results["mean_guess"]["forward"] == pytest.approx(0, abs=1e-9)
    assert results["mean_guess"]["lateral"] == pytest.approx(results["mean_guess"]["translation"])
    assert any(line.split()[0] == "latents" for line in printed[:-1])


def test_a_constant_speed_leaves_nothing_to_predict_in_the_filmed_order(
    video: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["eval", "poses", "--network", "synthetic-tiny", *video, *ON_CPU, "--gap", "2"]
    assert main([*words, "--no-both-orders", "--tiles", "1", "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    assert results["pairs"] == 5 * 4
    assert results["arms"]["latents"]["lateral"]["interval"] is None
    assert set(printed[2].split()[1:]) == {"-"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--gap", "6"], "30 frames in 5 parts leave no pair 6 frames apart"),
        (["--tiles", "49"], "tiles = 49: the frames have 48 columns; give fewer tiles"),
        (["--num-parts", "2"], "num_parts 2 is too small; give 3 or more"),
    ],
)
def test_pairs_that_cannot_be_made_are_refused(
    video: list[str], words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["eval", "poses", "--network", "synthetic-tiny", *video, *ON_CPU, *words]
    assert main(command) == 2
    assert said in capsys.readouterr().err


def test_networks_without_latents_and_frames_of_two_sizes_are_refused(
    video: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(random_network(latent_dynamics=False), tmp_path / "net.safetensors")
    words = ["eval", "poses", "--network", str(tmp_path / "net.safetensors"), *ON_CPU]
    assert main([*words, *video]) == 2
    assert "no motion latents" in capsys.readouterr().err
    frames = tmp_path / "frames"
    frames.mkdir()
    for number in range(20):
        Image.fromarray(np.zeros((16, 16 + number // 19, 3), np.uint8)).save(
            frames / f"{number}.png"
        )
    poses = tmp_path / "poses.txt"
    poses.write_text("1 0 0 0 0 1 0 0 0 0 1 0\n" * 20)
    words = ["eval", "poses", "--network", "synthetic-tiny", *ON_CPU]
    assert main([*words, "--frames", str(frames), "--poses", str(poses), "--tiles", "1"]) == 2
    assert "19.png: has another size than 0.png" in capsys.readouterr().err
