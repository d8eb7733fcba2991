"""The pose probe recovers motion that is there, finds none where there is none, and never peeks."""

import pytest
import torch

from midway.errors import MidwayError
from midway.evals.probes.pose import VideoPairs, block_bootstrap, cross_predicted, mean_predicted

PAIRS = VideoPairs.neighbours(40, gap=1, num_parts=5, reversed_too=True)


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def relative_error(features: torch.Tensor, motion: torch.Tensor, pairs: VideoPairs) -> float:
    tested = pairs.is_tested
    squared = [
        (predicted - motion)[tested].square().sum()
        for predicted in (cross_predicted(features, motion, pairs), mean_predicted(motion, pairs))
    ]
    return (squared[0] / squared[1]).sqrt().item()


def test_pairs_are_those_of_frames_a_gap_apart_in_both_orders() -> None:
    pairs = VideoPairs.neighbours(9, gap=2, num_parts=3, reversed_too=True)
    found = [*zip(pairs.first.tolist(), pairs.second.tolist(), strict=True)]
    forward = [(i, i + 2) for i in range(7)]
    assert found == [*forward, *((j, i) for i, j in forward)]
    assert pairs.part_of.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    tested = [pair for pair, is_tested in zip(found, pairs.is_tested, strict=True) if is_tested]
    assert tested == [(0, 2), (3, 5), (6, 8), (2, 0), (5, 3), (8, 6)]
    with pytest.raises(MidwayError, match="9 frames in 5 parts leave no pair 2 frames apart"):
        VideoPairs.neighbours(9, gap=2, num_parts=5, reversed_too=True)


@pytest.mark.parametrize("dim", [6, 300])
def test_motion_that_is_linearly_there_is_predicted(dim: int) -> None:
    motion = draw(len(PAIRS), 3)
    features = motion @ draw(3, dim, seed=1) + 3
    assert relative_error(features, motion, PAIRS) < 0.05


def test_motion_that_is_not_there_is_hardly_worse_than_the_mean() -> None:
    motion = draw(len(PAIRS), 3)
    assert 0.95 < relative_error(draw(len(PAIRS), 50, seed=1), motion, PAIRS) < 1.15


def test_predictions_of_a_part_do_not_depend_on_its_motion() -> None:
    motion, features = draw(len(PAIRS), 2), draw(len(PAIRS), 5, seed=1)
    changed = motion.clone()
    first, second = PAIRS.parts
    changed[(first == 2) | (second == 2)] += 100
    for predict in (
        lambda m: cross_predicted(features, m, PAIRS),
        lambda m: mean_predicted(m, PAIRS),
    ):
        found, with_other = predict(motion), predict(changed)
        part = (first == 2) & (second == 2)
        torch.testing.assert_close(found[part], with_other[part])
        assert found.isnan().any(1).equal(~PAIRS.is_tested)


def test_pairs_that_span_a_part_do_not_train_its_probe() -> None:
    # The gap is longer than a part may be: frames of parts 0 and 2 enclose part 1.
    spanning = VideoPairs(
        first=torch.tensor([0, 2, 4, 1, 0]),
        second=torch.tensor([1, 3, 5, 4, 5]),
        part_of=torch.tensor([0, 0, 1, 1, 2, 2]),
    )
    motion = torch.tensor([[1.0], [7.0], [3.0], [100.0], [100.0]], dtype=torch.float64)
    assert mean_predicted(motion, spanning)[1].item() == 2


def test_the_ratio_is_that_of_root_mean_squares_and_its_interval_encloses_it() -> None:
    errors, baseline = draw(60).square(), 4 * draw(60, seed=1).square()
    frames = torch.arange(60) // 2
    ratio, (low, high) = block_bootstrap(errors, baseline, frames, block=3, num_draws=500, seed=0)
    assert ratio == pytest.approx((sum(errors.tolist()) / sum(baseline.tolist())) ** 0.5)
    assert low < ratio < high
    assert high - low > 0.05


def test_the_interval_is_wider_if_neighbouring_errors_are_alike() -> None:
    errors = draw(10).square().repeat_interleave(10)
    baseline, frames = torch.ones(100, dtype=torch.float64), torch.arange(100)
    widths = []
    for block in (1, 10):
        _, (low, high) = block_bootstrap(
            errors, baseline, frames, block=block, num_draws=2000, seed=0
        )
        widths.append(high - low)
    assert widths[1] > 1.5 * widths[0]


def test_equal_errors_have_the_ratio_one_without_spread() -> None:
    errors = draw(20).square()
    found = block_bootstrap(errors, errors, torch.arange(20), block=4, num_draws=50, seed=0)
    assert found == (1, (1, 1))
