"""Scores of heatmaps end to end: on made worlds, on real pairs, and of maps that are right."""

import copy
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from midway.cli import main
from midway.data.flow.pairs import FlowExample, cut_squares
from midway.data.synthetic.pairs import WorldPairs
from midway.data.synthetic.world import WorldConfig
from midway.errors import MidwayError
from midway.evals import correspondence
from midway.evals.correspondence import (
    HeatmapConfig,
    PairSource,
    _data_settings,
    force_gates_open,
    score_heatmaps,
)
from midway.models.weights.save import save
from midway.nn.blocks import Gate

from ..models.networks import random_network

WORLDS = WorldPairs(
    world=WorldConfig(height=32, width=40, object_speed=20, camera_speed=20),
    num_worlds=2,
    pairs_per_world=2,
)
HOW = HeatmapConfig(num_draws=2)


@pytest.fixture
def network():
    torch.manual_seed(0)
    return random_network()


def _shifted(pixels: int) -> FlowExample:
    """Noise that moves to the right by some pixels."""
    frame = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    flow = np.zeros((32, 48, 2), np.float32)
    flow[..., 0] = pixels
    return FlowExample(
        source=frame, target=np.roll(frame, pixels, axis=1), flow=flow, occluded=None
    )


def test_worlds_are_scored_at_every_level_by_every_matcher(network):
    scores, num_pairs = score_heatmaps(network, WORLDS.examples(), HOW)
    assert num_pairs == 4
    assert [*scores] == ["1", "2", "3"]
    for groups in scores.values():
        visible, moving = groups["visible"], groups["moving"]
        assert 0 < moving["patches"] < visible["patches"] <= 4 * 20
        for matcher in ("heatmap", "features", "still"):
            assert 0 <= moving[matcher]["lean"] <= 1
            assert "lean" not in visible[matcher]
        assert visible["still"]["at_start"] == 1
        assert moving["still"]["lean"] == 0.5


def test_the_guess_of_no_motion_is_near_where_true_flow_is_short(network):
    scores, _ = score_heatmaps(network, WORLDS.examples(), HeatmapConfig(levels=(1,), num_draws=1))
    lengths = []
    for example in WORLDS.examples():  # 32 x 40 pixels, patches of 8: none is resized
        for row in range(0, 32, 8):
            for column in range(0, 40, 8):
                patch = (slice(row, row + 8), slice(column, column + 8))
                seen = ~example.occluded[patch]
                if 2 * seen.sum() <= 64:
                    continue
                vectors = np.sort(example.flow[patch][seen].astype(np.float64), axis=0)
                step = vectors[(len(vectors) - 1) // 2]
                x, y = column + 3.5 + step[0], row + 3.5 + step[1]
                if -0.5 <= x <= 39.5 and -0.5 <= y <= 31.5:
                    lengths.append(np.hypot(*step) / 8)
    found = scores["1"]["visible"]
    assert found["patches"] == len(lengths)
    assert found["still"]["near"] == pytest.approx(np.mean(np.array(lengths) <= 1))
    assert found["still"]["epe"] == pytest.approx(8 * np.mean(lengths), rel=1e-6)
    assert scores["1"]["moving"]["patches"] == sum(length >= 1 for length in lengths)


def test_heatmaps_that_follow_the_motion_win(network, monkeypatch):
    def following(_network, _output, grid, *, tokens, **_):
        cells = torch.tensor(tokens) + 1  # one patch to the right
        return F.one_hot(cells, grid[0] * grid[1]).float().unflatten(1, grid)[None]

    monkeypatch.setattr(correspondence, "output_heatmaps", following)
    scores, _ = score_heatmaps(network, iter([_shifted(8)]), HeatmapConfig(levels=(2,)))
    moving = scores["2"]["moving"]
    assert moving["patches"] == 4 * 5
    full = {"near": 1, "near_else": 1, "epe": 0, "mass_epe": 0, "lean": 1, "at_start": 0}
    assert moving["heatmap"] == full
    assert moving["still"]["at_start"] == 1


def test_features_find_what_moves_by_whole_patches_where_places_do_not_matter(network):
    # Without positions and context, the first block's MLP sees a patch as it is.
    with torch.no_grad():
        network.encoder.pos_embed.zero_()
        for block in network.encoder.blocks:
            block.attn.proj.weight.zero_()
            block.attn.proj.bias.zero_()
    scores, _ = score_heatmaps(network, iter([_shifted(8)]), HeatmapConfig(levels=(1,)))
    features = scores["1"]["moving"]["features"]
    assert (features["near"], features["epe"], features["lean"]) == (1, 0, 1)


def test_some_patches_of_a_pair_can_be_scored_alone(network):
    how = HeatmapConfig(levels=(1,), num_draws=1, tokens_per_pair=7)
    scores, _ = score_heatmaps(network, WORLDS.examples(), how)
    assert scores["1"]["visible"]["patches"] == 4 * 7


def test_forcing_gates_open_is_as_if_they_had_learnt_to_stay_at_one(network):
    opened, learnt = copy.deepcopy(network), copy.deepcopy(network)
    force_gates_open(opened)
    for part in learnt.modules():
        if isinstance(part, Gate):
            part.mlp.fc2.bias.data.fill_(1e4)  # a sigmoid of that is 1
    own, forced, wanted = (
        score_heatmaps(each, WORLDS.examples(), HOW)[0] for each in (network, opened, learnt)
    )
    assert forced == wanted
    assert forced != own


def test_the_command_says_that_gates_are_open_and_refuses_where_there_are_none(
    network, tmp_path, capsys
):
    save(network, tmp_path / "net.safetensors")
    save(random_network(gates=False), tmp_path / "none.safetensors")
    words = ["--height", "32", "--width", "32", "--num-worlds", "1", "--pairs-per-world", "1"]
    words += ["--levels", "1", "--num-draws", "1", "--open-gates", "--json"]
    assert (
        main(["eval", "correspondence", "--network", str(tmp_path / "net.safetensors"), *words])
        == 0
    )
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == "1 pair, gates forced open"
    assert (json.loads(last)["gates"], json.loads(last)["open_gates"]) == (False, True)
    none = str(tmp_path / "none.safetensors")
    assert main(["eval", "correspondence", "--network", none, *words]) == 2
    assert capsys.readouterr().err == (
        "midway: open_gates: the network has no gates; leave out --open-gates\n"
    )


def test_real_pairs_are_scored_from_the_command_line(network, shared_data, tmp_path, capsys):
    save(network, tmp_path / "net.safetensors")
    words = ["--network", str(tmp_path / "net.safetensors"), "--data.dataset", "middlebury"]
    words += ["--data.root", str(shared_data / "flow/middlebury"), "--levels", "3"]
    words += ["--num-draws", "1", "--accelerator", "cpu", "--folder", str(tmp_path / "out")]
    assert main(["eval", "correspondence", *words, "--json"]) == 0
    printed = capsys.readouterr().out.splitlines()
    results = json.loads(printed[-1])
    assert results == json.loads((tmp_path / "out/results.json").read_text())
    assert results["pairs"] == 6
    assert results["levels"]["3"]["visible"]["still"]["at_start"] == 1
    assert "level 3, visible:" in "\n".join(printed)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "no network: give a run folder"),
        (
            ["--network", "{net}", "--data.dataset", "kitti"],
            "kitti: no folder is given; add --data.root DIR",
        ),
        (
            ["--network", "{net}", "--data.root", "x"],
            "synthetic worlds have no folder; add --data.dataset",
        ),
        (["--network", "{net}", "--levels", "4"], "level 4 has no forward model"),
        (["--network", "{net}", "--num-draws", "0"], "num_draws = 0; give 1 or more"),
        (["--network", "{net}", "--num-worlds", "0"], "no pairs: 0 worlds"),
        (
            ["--network", "{net}", "--gap-seconds", "nan"],
            "pairs nan s apart; give 1 or more of each",
        ),
        (
            ["--network", "{net}", "--moving-patches", "nan"],
            "moving_patches = nan; give 0 or more",
        ),
    ],
)
def test_what_cannot_be_scored_is_one_line(network, tmp_path, capsys, words, message):
    save(network, tmp_path / "net.safetensors")
    words = [word.replace("{net}", str(tmp_path / "net.safetensors")) for word in words]
    assert main(["eval", "correspondence", *words]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_pairs_without_known_flow_are_an_error(network):
    example = _shifted(8)
    example.flow[:] = np.inf
    with pytest.raises(MidwayError, match="no patch of 1 pairs can be scored"):
        score_heatmaps(network, iter([example]), HOW)


def test_a_source_gives_the_worlds_that_it_names():
    data = PairSource(worlds=WORLDS)
    assert len([*data.examples()]) == 4


def test_squares_cover_a_wide_pair_and_keep_pixels_and_flow() -> None:
    noise = np.random.default_rng(0)
    example = FlowExample(
        source=noise.integers(0, 256, (20, 50, 3), np.uint8),
        target=noise.integers(0, 256, (20, 50, 3), np.uint8),
        flow=noise.normal(size=(20, 50, 2)).astype(np.float32),
        occluded=noise.random((20, 50)) < 0.5,
    )
    squares = [*cut_squares(example)]
    starts = [0, 10, 20, 30]
    for start, square in zip(starts, squares, strict=True):
        columns = slice(start, start + 20)
        assert np.array_equal(square.source, example.source[:, columns])
        assert np.array_equal(square.target, example.target[:, columns])
        assert np.array_equal(square.flow, example.flow[:, columns])
        assert np.array_equal(square.occluded, example.occluded[:, columns])


def test_smaller_squares_cover_both_axes() -> None:
    frame = np.arange(20 * 30 * 3).reshape(20, 30, 3).astype(np.uint8)
    flow = np.arange(20 * 30 * 2).reshape(20, 30, 2).astype(np.float32)
    example = FlowExample(source=frame, target=frame, flow=flow, occluded=None)
    squares = [*cut_squares(example, 10)]
    starts = [(top, left) for top in (0, 5, 10) for left in (0, 5, 10, 15, 20)]
    for (top, left), square in zip(starts, squares, strict=True):
        assert np.array_equal(square.flow, flow[top : top + 10, left : left + 10])
        assert np.array_equal(square.source, frame[top : top + 10, left : left + 10])
    (whole,) = cut_squares(replace(example, source=frame[:, :20], flow=flow[:, :20]), 40)
    assert whole.flow.shape == (20, 20, 2)


@pytest.mark.parametrize("how", [{"squares": True, "square_side": -1}, {"square_side": 32}])
def test_a_side_below_0_or_without_squares_is_refused(how: dict[str, int]) -> None:
    with pytest.raises(MidwayError, match=r"square_side = .*; give 0, or a side above 0 with"):
        PairSource(**how)


@pytest.mark.parametrize(("shape", "number"), [((20, 20), 1), ((20, 21), 2), ((60, 20), 5)])
def test_squares_of_any_shape(shape: tuple[int, int], number: int) -> None:
    frame, flow = np.zeros((*shape, 3), np.uint8), np.zeros((*shape, 2), np.float32)
    example = FlowExample(source=frame, target=frame, flow=flow, occluded=None)
    sizes = [square.source.shape for square in cut_squares(example)]
    assert sizes == [(20, 20, 3)] * number


def test_wide_worlds_in_squares_are_more_pairs_of_square_grids(network) -> None:
    _, whole = score_heatmaps(network, WORLDS.examples(), HOW)
    in_squares = PairSource(worlds=WORLDS, squares=True)
    assert in_squares.num_examples() is None
    _, squares = score_heatmaps(network, in_squares.examples(), HOW)
    assert squares == 2 * whole


def test_squares_are_a_setting_of_results_only_if_they_are_cut() -> None:
    whole = PairSource(dataset="sintel")
    assert _data_settings(whole) == {"dataset": "sintel", "split": "all"}
    cut = _data_settings(PairSource(dataset="sintel", squares=True))
    assert cut == {"dataset": "sintel", "split": "all", "squares": True}
    small = _data_settings(PairSource(dataset="sintel", squares=True, square_side=96))
    assert small == {**cut, "square_side": 96}
