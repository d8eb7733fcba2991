"""The packaged network `midway-tiny` finds what moves, in made worlds and on real pictures."""

from pathlib import Path

import pytest
import torch

from midway.analysis.tracking import track_points
from midway.data.synthetic.photo_world import PhotoWorldConfig
from midway.data.synthetic.write import write_flow_dataset
from midway.data.video.file import VideoFile
from midway.data.video.frames import VideoFrames
from midway.evals.correspondence import HeatmapConfig, PairSource, score_heatmaps
from midway.experiments.motion import CORRELATED_NETWORK
from midway.models.midway import MidwayNetwork
from midway.models.weights.files import BUNDLED
from midway.models.weights.load import load

FEW = HeatmapConfig(num_draws=4, tokens_per_pair=16)


@pytest.fixture(scope="module")
def network() -> MidwayNetwork:
    return load("midway-tiny")


def test_it_is_the_network_of_the_presets_in_ten_megabytes(network: MidwayNetwork) -> None:
    assert network.config == CORRELATED_NETWORK
    assert (BUNDLED / "midway-tiny.safetensors").stat().st_size <= 1e7


def test_its_heatmaps_find_what_moves_in_new_worlds_more_often_than_its_features(
    network: MidwayNetwork, tmp_path: Path
) -> None:
    pytest.importorskip("skimage", reason="its pictures come with scikit-image")
    pytest.importorskip("sklearn", reason="its pictures come with scikit-learn")
    world = PhotoWorldConfig(
        height=96,
        width=96,
        num_frames=3,
        fps=2.0,
        camera_speed=40.0,
        object_speed=28.0,
        camera_reach=(0.4, 0.4),
    )
    # Seeds of no training world.
    write_flow_dataset(tmp_path, world, seeds=range(5_000_000, 5_000_008))
    pairs = PairSource(dataset="sintel", root=tmp_path, split="all-clean")
    scores, _ = score_heatmaps(network, pairs.examples(), FEW)
    moving = scores["1"]["moving"]
    assert moving["heatmap"]["near"] > 0.25  # chance: 0.02
    assert moving["heatmap"]["near"] > 1.1 * moving["features"]["near"]
    assert moving["heatmap"]["lean"] > 0.85


def test_its_heatmaps_find_what_moves_in_flying_chairs(
    network: MidwayNetwork, shared_data: Path
) -> None:
    root = shared_data / "flow/flyingchairs"
    pairs = PairSource(dataset="chairs", root=root, squares=True, square_side=256)
    scores, _ = score_heatmaps(network, pairs.examples(), FEW)
    moving = scores["1"]["moving"]
    assert moving["heatmap"]["near"] > 0.5
    assert moving["heatmap"]["near"] > 1.1 * moving["features"]["near"]


def test_it_follows_the_stem_of_an_apple(network: MidwayNetwork, shared_data: Path) -> None:
    start = torch.tensor([[470.0, 170.0]])
    with VideoFile(str(shared_data / "video/cotracker/apple.mp4")) as file:
        read = VideoFrames(file, fps=5)
        frames = torch.stack([read[number] for number in range(9)])
    tracks = track_points(network, frames, start, torch.tensor([0]), window=192, num_draws=8)
    true = torch.tensor([530.0, 245.0])  # the hollow of the stem 1.6 s later, by eye
    assert (start[0] - true).norm() > 90
    assert (tracks.points[0, -1] - true).norm() < 35
    assert tracks.confidence.mean() > 0.5
