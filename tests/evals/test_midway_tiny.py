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


def test_it_stays_on_the_head_of_the_swan(network: MidwayNetwork, shared_data: Path) -> None:
    with VideoFile(str(shared_data / "video/davis_clips/blackswan.mp4")) as file:
        frames = VideoFrames(file, fps=5)
        head = torch.tensor([[437.0, 105.0]])
        tracks = track_points(network, frames, head, torch.tensor([0]), window=192, num_draws=8)
    # Where the head is in the last frame, by eye: it turns and rises a little.
    assert (tracks.points[0, -1] - torch.tensor([465.0, 115.0])).norm() < 40
    assert tracks.confidence.mean() > 0.5
