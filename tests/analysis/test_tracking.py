"""Tracks are those of the rule written as a loop, of a known motion, and of time run backward."""

import math

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from midway.analysis.perturbation import perturbation_heatmaps
from midway.analysis.tracking import track_points
from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError
from midway.models.flow.predictor import FlowMethod, flow_predictor
from midway.models.midway import MidwayNetwork
from midway.nn.images import normalise
from tests.models.networks import tiny

PATCH = 8
LEVEL = 3
BY_NETWORK = ("midway", "plain", "features", "chained", "heatmap")


@pytest.fixture
def network() -> MidwayNetwork:
    torch.manual_seed(0)
    network = MidwayNetwork(tiny())
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def noise(count: int, height: int = 32, width: int = 40, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 3, height, width)
    return torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)


def at(*points: tuple[float, float]) -> torch.Tensor:
    return torch.tensor(points, dtype=torch.float32)


def starts(*numbers: int) -> torch.Tensor:
    return torch.tensor(numbers)


def peak(scores: torch.Tensor, row: int, column: int) -> tuple[float, float]:
    """Column and row of the soft-argmax over the 3 x 3 patches round one, as a loop."""
    total = x = y = 0.0
    for r in range(max(row - 1, 0), min(row + 2, scores.shape[0])):
        for c in range(max(column - 1, 0), min(column + 2, scores.shape[1])):
            weight = math.exp(float(scores[r, c] - scores[row, column]) / 0.03)
            total, x, y = total + weight, x + weight * c, y + weight * r
    return x / total, y / total


def test_tracks_by_midway_are_the_papers_rule(network):
    frames, grid = noise(4), (4, 5)
    images = normalise(frames / 255)
    with torch.no_grad():
        features = network.encoder.levels(images, (LEVEL,))[0][:, 1:]
    looks = F.normalize(features - features.mean(1, keepdim=True), dim=2).unflatten(1, grid)
    start = x, y = 17.0, 20.0
    look = looks[0, 2, 2]
    place = peak(looks[0] @ look, 2, 2)
    tracks = track_points(network, frames, at(start), starts(0), num_draws=3, seed=5)
    for number in range(1, 4):
        token = int((y + 0.5) // PATCH) * 5 + int((x + 0.5) // PATCH)
        (heatmap,) = perturbation_heatmaps(
            network,
            images[number - 1 : number],
            images[number : number + 1],
            level=LEVEL,
            tokens=[token],
            num_draws=3,
            seed=5,
        )[0].flatten(1)
        similarity = looks[number] @ look
        hottest = sorted(range(20), key=lambda each, heat=heatmap: -float(heat[each]))[:5]
        best = max(hottest, key=lambda each, like=similarity: float(like[each // 5, each % 5]))
        found = peak(similarity, best // 5, best % 5)
        x = min(max(start[0] + PATCH * (found[0] - place[0]), 0), 39)
        y = min(max(start[1] + PATCH * (found[1] - place[1]), 0), 31)
        torch.testing.assert_close(tracks.points[0, number], torch.tensor([x, y]))
        sure = float(similarity[best // 5, best % 5].clamp(0, 1))
        inside = 0 < x < 39 and 0 < y < 31
        assert float(tracks.confidence[0, number]) == pytest.approx(sure * inside, abs=1e-5)


def test_the_plain_rule_compares_with_the_current_patch_and_moves_by_whole_patches(network):
    frames, grid = noise(4), (4, 5)
    images = normalise(frames / 255)
    with torch.no_grad():
        features = network.encoder.levels(images, (LEVEL,))[0][:, 1:]
    unit = F.normalize(features, dim=2)
    x, y = 17.0, 20.0
    asked = {"method": "plain", "num_draws": 3, "seed": 5}
    tracks = track_points(network, frames, at((x, y)), starts(0), **asked)
    for number in range(1, 4):
        column, row = int((x + 0.5) // PATCH), int((y + 0.5) // PATCH)
        (heatmap,) = perturbation_heatmaps(
            network,
            images[number - 1 : number],
            images[number : number + 1],
            level=LEVEL,
            tokens=[row * grid[1] + column],
            num_draws=3,
            seed=5,
        )[0].flatten(1)
        similarity = unit[number] @ unit[number - 1, row * grid[1] + column]
        hottest = sorted(range(20), key=lambda each, heat=heatmap: -float(heat[each]))[:5]
        best = max(hottest, key=lambda each, like=similarity: float(like[each]))
        x, y = x + PATCH * (best % 5 - column), y + PATCH * (best // 5 - row)
        torch.testing.assert_close(tracks.points[0, number], torch.tensor([x, y]))
        assert float(tracks.confidence[0, number]) == pytest.approx(
            float(similarity[best].clamp(0, 1)), abs=1e-5
        )


def test_chained_features_go_from_patch_to_patch_without_heatmaps(network):
    frames = noise(4)
    with torch.no_grad():
        features = network.encoder.levels(normalise(frames / 255), (LEVEL,))[0][:, 1:]
    unit = F.normalize(features - features.mean(1, keepdim=True), dim=2)
    x, y = 17.0, 20.0
    alone = [
        track_points(it, frames, at((x, y)), starts(0), method="chained", level=LEVEL)
        for it in (network, network.encoder)
    ]
    for number in range(1, 4):
        column, row = int((x + 0.5) // PATCH), int((y + 0.5) // PATCH)
        similarity = unit[number] @ unit[number - 1, row * 5 + column]
        best = int(similarity.argmax())
        x, y = x + PATCH * (best % 5 - column), y + PATCH * (best // 5 - row)
        sure = float(similarity[best].clamp(0, 1))
        for tracks in alone:
            torch.testing.assert_close(tracks.points[0, number], torch.tensor([x, y]))
            assert float(tracks.confidence[0, number]) == pytest.approx(sure, abs=1e-5)


def test_features_follow_what_moves_by_whole_patches(network):
    nn.init.zeros_(network.encoder.pos_embed)
    first = noise(1, 48, 64)[0]
    frames = torch.stack([first.roll((8 * step, 16 * step), (1, 2)) for step in range(3)])
    tracks = track_points(
        network, frames, at((13, 17.5)), starts(0), method="features", short_side=48
    )
    expected = at((13, 17.5), (29, 25.5), (45, 33.5))
    assert (tracks.points[0] - expected).abs().max() < 0.05
    torch.testing.assert_close(tracks.confidence[0], torch.ones(3), atol=1e-4, rtol=0)


def test_heatmaps_of_an_identity_leave_a_point_where_it_is(network):
    for block in network.dynamics.forward_models[str(LEVEL)].blocks:
        for projection in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(projection.weight)
            nn.init.zeros_(projection.bias)
    tracks = track_points(network, noise(3), at((17.25, 9)), starts(1), method="heatmap")
    torch.testing.assert_close(tracks.points[0], at(*[(17.25, 9)] * 3))


@pytest.mark.parametrize("size", [(32, 40), (45, 70)])
@pytest.mark.parametrize("method", ["features", "flow"])
def test_in_a_still_video_points_stay_whatever_its_size(network, method, size):
    frames = noise(1, *size).repeat(3, 1, 1, 1)
    points = at((0, 0), (size[1] - 1, size[0] - 1), (21.5, 30))
    tracks = track_points(network, frames, points, starts(0, 1, 2), method=method)
    expected = points[:, None].expand(-1, 3, -1)
    torch.testing.assert_close(tracks.points, expected, atol=0.05, rtol=0)
    assert tracks.confidence.min() > 0.95


@pytest.mark.parametrize("method", [*BY_NETWORK, "flow"])
def test_in_a_reversed_video_tracks_run_backward(network, method):
    frames, points = noise(4), at((5, 6), (30, 11))
    asked = {"method": method, "num_draws": 2}
    tracks = track_points(network, frames, points, starts(1, 3), **asked)
    mirrored = track_points(network, frames.flip(0), points, starts(2, 0), **asked)
    torch.testing.assert_close(mirrored.points, tracks.points.flip(1))
    torch.testing.assert_close(mirrored.confidence, tracks.confidence.flip(1))


@pytest.mark.parametrize("method", BY_NETWORK)
def test_points_do_not_disturb_each_other(network, method):
    frames, points, first = noise(4), at((5, 6), (30, 11), (6, 7), (22, 30)), starts(1, 3, 1, 0)
    asked = {"method": method, "num_draws": 2}
    together = track_points(network, frames, points, first, **asked)
    for number in range(4):
        one = slice(number, number + 1)
        alone = track_points(network, frames, points[one], first[one], **asked)
        torch.testing.assert_close(alone.points, together.points[one], atol=1e-3, rtol=0)
        assert torch.equal(alone.points[0, first[number]], points[number])
        assert alone.confidence[0, first[number]] == 1


def test_flow_carries_points_until_they_leave():
    def predict(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        sign = 1 if source.mean() < target.mean() else -1  # brighter is later
        return np.full((*source.shape[:2], 2), sign * np.array([3, -2]), np.float32)

    frames = torch.arange(5, dtype=torch.uint8)[:, None, None, None].expand(5, 3, 16, 20)
    tracks = track_points(None, frames, at((9, 12)), starts(1), method="flow", flow=predict)
    expected = at((6, 14), (9, 12), (12, 10), (15, 8), (18, 6))
    torch.testing.assert_close(tracks.points[0], expected)
    assert (tracks.confidence == 1).all()
    leaving = track_points(None, frames, at((14, 12)), starts(1), method="flow", flow=predict)
    torch.testing.assert_close(leaving.points[0, 2:], at((17, 10), (19, 8), (19, 6)))
    assert leaving.confidence[0].tolist() == [1, 1, 1, 0, 0]


def test_confidence_in_flow_is_one_half_where_the_way_back_just_misses():
    there, back = 4.0, -4.0
    for _ in range(50):  # (there + back)^2 = 0.01 (there^2 + back^2) + 0.5
        back = -there + math.sqrt(0.01 * (there**2 + back**2) + 0.5)

    def predict(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        along = there if source.mean() < target.mean() else back
        return np.full((*source.shape[:2], 2), (along, 0), np.float32)

    frames = torch.arange(2, dtype=torch.uint8)[:, None, None, None].expand(2, 3, 16, 20)
    tracks = track_points(None, frames, at((9, 12)), starts(0), method="flow", flow=predict)
    assert float(tracks.confidence[0, 1]) == pytest.approx(0.5, abs=1e-4)


def test_flow_of_pixels_follows_the_synthetic_world():
    world, fps = World(WorldConfig(num_objects=3), 7), 10
    frames = torch.from_numpy(np.stack([world.frame(t / fps).image for t in range(8)]))
    points = at(*[(x, y) for x in range(16, 128, 32) for y in range(16, 96, 32)])
    columns, rows = points.long().unbind(1)
    motion = world.flow(0, 7 / fps)
    seen = ~motion.occluded[rows, columns]
    moved = motion.flow[rows, columns][seen]
    tracks = track_points(
        None,
        frames.permute(0, 3, 1, 2),
        points,
        torch.zeros(len(points), dtype=torch.long),
        method="flow",
        flow=flow_predictor(FlowMethod(method="pixels")),
    )
    error = (tracks.points[:, -1] - points).numpy()[seen] - moved
    assert seen.sum() >= 8
    assert np.median(np.hypot(*error.T)) < 0.3 * np.median(np.hypot(*moved.T))


class Read:
    """Frames that are read one by one."""

    def __init__(self, frames: torch.Tensor) -> None:
        self.frames, self.numbers = frames, []

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, number: int) -> torch.Tensor:
        self.numbers.append(number)
        return self.frames[number]


def test_frames_are_read_in_order_away_from_the_starts(network):
    frames = Read(noise(6))
    tracks = track_points(network, frames, at((5, 6)), starts(2), method="features")
    read = [b for a, b in zip([-1, *frames.numbers], frames.numbers, strict=False) if a != b]
    assert read == [2, 3, 4, 5, 2, 1, 0]
    assert tracks.points.shape == (1, 6, 2)


def test_no_points_are_no_tracks(network):
    tracks = track_points(network, noise(3), torch.zeros(0, 2), torch.zeros(0, dtype=torch.long))
    assert tracks.points.shape == (0, 3, 2)
    assert tracks.confidence.shape == (0, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"points": at((40, 3))}, r"point 40,3 is outside the image of 40 x 32 pixels; .* 39 and"),
        ({"points": at((3, math.nan))}, "point 3,nan is outside"),
        ({"start_frames": starts(3)}, "start frame 3: is not in the video; choose from 0 to 2"),
        ({"frames": noise(1)}, "a video of 1 frame has no motion"),
        ({"frames": [noise(1)[0], noise(1, 32, 48)[0]]}, "frame 1 has 48 x 32 pixels, others 40 x"),
        ({"level": 4}, "level 4 has no forward model"),
        ({"level": 4, "method": "heatmap"}, "level 4 has no forward model"),
        ({"level": 5, "method": "features"}, "the encoder has levels 1 to 4"),
        ({"network": None}, "tracking by midway: no network"),
        ({"num_draws": 0}, "0 draws: give 1 or more"),
        ({"short_side": -1}, "short side of -1 pixels"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(network, changes, message):
    asked = {"frames": noise(3), "points": at((3, 3)), "start_frames": starts(0)}
    with pytest.raises(MidwayError, match=message) as told:
        track_points(**({"network": network} | asked | changes))
    assert "\n" not in str(told.value)
