"""Measures of correspondence against slow loops and hand-made maps."""

import numpy as np
import pytest
import torch

from midway.evals.metrics.correspondence import (
    MIN_KNOWN,
    Tally,
    TruePlaces,
    centre_of_mass,
    chance,
    token_measures,
    true_places,
)

GRID, PATCH = (3, 5), 4


def _truth(starts, places, columns=5):
    starts, places = torch.tensor(starts).double(), torch.tensor(places).double()
    tokens = (starts[:, 1] * columns + starts[:, 0]).long()
    return TruePlaces(tokens=tokens, starts=starts, places=places)


def _peak(*cells, rows=3, columns=5):
    maps = torch.zeros(len(cells), rows, columns)
    for number, (x, y) in enumerate(cells):
        maps[number, y, x] = 1
    return maps


def test_true_places_agree_with_a_loop_over_patches_and_pixels():
    rng = np.random.default_rng(0)
    size = (GRID[0] * PATCH, GRID[1] * PATCH)
    flow = rng.normal(0, 6, (2, *size)).astype(np.float32)
    flow[:, rng.random(size) < rng.random(size) ** 0.3] = np.inf
    occluded = rng.random(size) < 0.4
    expected = []
    for token in range(GRID[0] * GRID[1]):
        row, column = divmod(token, GRID[1])
        known, seen = 0, []
        for y in range(row * PATCH, (row + 1) * PATCH):
            for x in range(column * PATCH, (column + 1) * PATCH):
                if np.isfinite(flow[0, y, x]):
                    known += 1
                    if not occluded[y, x]:
                        seen.append(flow[:, y, x])
        if known < MIN_KNOWN * PATCH**2 or 2 * len(seen) <= known:
            continue
        step = [sorted(float(v[axis]) for v in seen)[(len(seen) - 1) // 2] for axis in (0, 1)]
        place = (column + step[0] / PATCH, row + step[1] / PATCH)
        if -0.5 <= place[0] <= GRID[1] - 0.5 and -0.5 <= place[1] <= GRID[0] - 0.5:
            expected.append((token, *place))
    found = true_places(torch.from_numpy(flow), torch.from_numpy(occluded), GRID)
    assert 2 < len(expected) < 14
    assert found.tokens.tolist() == [token for token, _, _ in expected]
    np.testing.assert_allclose(found.places, [place for _, *place in expected], rtol=1e-6)


def test_flow_of_whole_patches_leads_to_their_places():
    flow = torch.zeros(2, 12, 20)
    flow[0], flow[1] = 2 * PATCH, -PATCH
    found = true_places(flow, None, GRID)
    assert found.tokens.tolist() == [5, 6, 7, 10, 11, 12]  # others leave the image
    assert (found.places - found.starts).unique(dim=0).tolist() == [[2.0, -1.0]]


def test_a_map_that_peaks_at_the_true_place_has_full_marks():
    truth = _truth([[2, 1], [1, 0]], [[3, 1], [1, 2]])
    found = token_measures(_peak((3, 1), (1, 2)), truth, (8, 8))
    assert found["near"].tolist() == [1, 1]
    assert found["epe"].tolist() == found["mass_epe"].tolist() == [0, 0]
    assert found["at_start"].tolist() == [0, 0]
    # The second one's mirror image lies above the image.
    assert found["lean"][0] == 1
    assert found["lean"][1].isnan()


def test_a_map_that_peaks_at_the_start_misses_by_the_flow_and_leans_to_no_side():
    truth = _truth([[2, 1]], [[2 + 1.5, 1 - 0.5]])
    found = token_measures(_peak((2, 1)), truth, (8, 4))
    assert found["near"].tolist() == [0]
    assert found["epe"].item() == pytest.approx(np.hypot(1.5 * 8, 0.5 * 4))
    assert (found["lean"].item(), found["at_start"].item()) == (0.5, 1)


def test_a_map_that_peaks_on_the_other_side_leans_away():
    found = token_measures(_peak((1, 1)), _truth([[2, 1]], [[3, 1]]), (8, 8))
    assert found["lean"].item() == 0


def test_the_highest_score_elsewhere_counts_where_scores_differ_there():
    maps = _peak((2, 1), (2, 1), (0, 0))
    maps[0, 1, 4] = 0.3
    truth = _truth([[2, 1], [2, 1], [2, 1]], [[4, 1], [4, 1], [0.5, 0]])
    found = token_measures(maps, truth, (8, 8))
    assert found["near"].tolist() == [0, 0, 1]
    assert found["near_else"][0] == found["near_else"][2] == 1
    assert found["near_else"][1].isnan()  # nothing but the start has a score


def test_the_share_at_the_start_agrees_with_a_loop_over_places_for_all_and_for_moving():
    torch.manual_seed(1)
    rows, columns = 4, 6
    tokens = [3, 0, 23, 10, 11, 7, 20, 14]
    starts = [[token % columns, token // columns] for token in tokens]
    places = [[x + 1.5 * (number % 2), y] for number, (x, y) in enumerate(starts)]
    maps = torch.rand(len(tokens), rows, columns)
    for number, (x, y) in enumerate(starts[:5]):
        maps[number, y, x] = 2.0
    truth = _truth(starts, places, columns)
    found = token_measures(maps, truth, (8, 8))["at_start"]
    kept = {"visible": [], "moving": []}
    for number, (x, y) in enumerate(starts):
        best = max((maps[number, j, i].item(), j, i) for j in range(rows) for i in range(columns))
        peaks = best[1:] == (y, x)
        kept["visible"].append(peaks)
        if np.hypot(places[number][0] - x, places[number][1] - y) >= 1:
            kept["moving"].append(peaks)
    assert found.tolist() == kept["visible"]
    assert found[truth.distances() >= 1].tolist() == kept["moving"]
    assert 0 < sum(kept["moving"]) < len(kept["moving"]) < len(tokens)


def test_lean_reads_scores_between_patches():
    maps = torch.zeros(1, 3, 5)
    maps[0, 1] = torch.tensor([0.0, 0.4, 1.0, 0.0, 0.9])
    # At +1.75 (3/4 of 0.9) it is higher than at -1.75 (a quarter of 0.4).
    truth = _truth([[2, 1]], [[3.75, 1]])
    assert token_measures(maps, truth, (8, 8))["lean"].item() == 1
    # At +1.25: a quarter of 0.9 against three quarters of 0.4.
    truth = _truth([[2, 1]], [[3.25, 1]])
    assert token_measures(maps, truth, (8, 8))["lean"].item() == 0


def test_the_centre_of_mass_is_that_of_what_exceeds_half_the_peak():
    torch.manual_seed(0)
    maps = torch.randn(6, 4, 5).double()
    maps[-1] = -maps[-1].abs()  # nothing above 0: the highest place itself
    for each, found in zip(maps, centre_of_mass(maps), strict=True):
        highest = each.max().item()
        total, x, y = 0.0, 0.0, 0.0
        for row in range(4):
            for column in range(5):
                score = each[row, column].item()
                weight = max(0.0, score - highest / 2) if highest > 0 else float(score == highest)
                total, x, y = total + weight, x + weight * column, y + weight * row
        assert found.tolist() == pytest.approx([x / total, y / total])


def test_chance_counts_the_places_within_one_patch():
    truth = _truth([[0, 0]] * 3, [[2, 1], [0, 0], [1.5, 1]])
    assert chance(truth, GRID).tolist() == pytest.approx([5 / 15, 3 / 15, 2 / 15])


def test_a_tally_leaves_out_what_does_not_apply():
    tally = Tally()
    tally.add({"near": torch.tensor([1.0, 0.0]), "lean": torch.tensor([torch.nan, torch.nan])})
    tally.add({"near": torch.tensor([1.0]), "lean": torch.tensor([torch.nan])})
    assert tally.means() == {"near": pytest.approx(2 / 3), "lean": None}
