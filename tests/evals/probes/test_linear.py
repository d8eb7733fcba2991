"""The linear probe finds what is linearly there and nothing else; scores equal slow loops."""

import math

import numpy as np
import pytest
import torch

from midway.errors import MidwayError
from midway.evals.probes.linear import (
    IGNORE,
    class_shares,
    fit_logistic,
    linear_segmentation,
    patch_features,
    segmentation_score,
)
from midway.models.encoders.vit import VisionTransformer
from midway.nn.images import normalise
from tests.models.networks import ENCODER

NUM_CLASSES = 4


class PatchReader(VisionTransformer):
    """Whose features are the numbers painted into the images, one channel a class."""

    def levels(self, images, levels):
        numbers = torch.nn.functional.one_hot(images[:, 0, ::8, ::8].long(), NUM_CLASSES)
        patches = numbers.flatten(1, 2).to(images)
        return [torch.cat([patches[:, :1], patches], dim=1) for _ in levels]


def encoder_of(kind=VisionTransformer):
    torch.manual_seed(0)
    return kind(ENCODER)


def painted(classes):
    """Images (N, 3, H, W) that show the classes (N, H, W)."""
    return classes[:, None].expand(-1, 3, -1, -1).float()


def halves():
    """Labels of 32 x 32 pixels, every class left of every class."""
    pairs = torch.cartesian_prod(torch.arange(NUM_CLASSES), torch.arange(NUM_CLASSES))
    return pairs.repeat_interleave(16, dim=1)[:, None].expand(-1, 32, -1)


def random_patches(count, seed):
    generator = torch.Generator().manual_seed(seed)
    classes = torch.randint(NUM_CLASSES, (count, 4, 4), generator=generator)
    return classes.repeat_interleave(8, dim=1).repeat_interleave(8, dim=2)


def test_perfect_features_score_100_at_twice_the_size_too():
    train = (painted(halves()), halves())
    large = halves().repeat_interleave(2, dim=1).repeat_interleave(2, dim=2)
    score, predictions = linear_segmentation(
        encoder_of(PatchReader), train, (painted(halves()), large), NUM_CLASSES
    )
    assert torch.equal(predictions.long(), large)
    assert predictions.dtype == torch.uint8
    assert (score.miou, score.accuracy) == (100, 100)
    assert score.iou == (100,) * NUM_CLASSES


def test_features_that_know_nothing_score_chance():
    train, test = (
        (painted(random_patches(128, seed)), random_patches(128, seed + 1)) for seed in (0, 2)
    )
    score, _ = linear_segmentation(encoder_of(PatchReader), train, test, NUM_CLASSES)
    assert score.accuracy == pytest.approx(100 / NUM_CLASSES, abs=4)
    assert score.miou < 100 / NUM_CLASSES


def test_ignored_pixels_count_neither_in_training_nor_in_the_score():
    seen, labels = halves().clone(), halves().clone()
    seen[:, 16:] = (seen[:, 16:] + 1) % NUM_CLASSES
    encoder = encoder_of(PatchReader)
    contradicted, _ = linear_segmentation(
        encoder, (painted(seen), labels), (painted(halves()), halves()), NUM_CLASSES
    )
    assert contradicted.accuracy < 100
    labels[:, 16:] = IGNORE
    score, _ = linear_segmentation(
        encoder, (painted(seen), labels), (painted(halves()), halves()), NUM_CLASSES
    )
    assert score.accuracy == 100
    wrong = halves().clone()
    wrong[:, 16:] = (wrong[:, 16:] + 1) % NUM_CLASSES
    assert segmentation_score(wrong, labels, NUM_CLASSES).accuracy == 100


def test_the_score_equals_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (3, 9, 11), generator=generator)
    predictions = torch.where(
        torch.rand(labels.shape, generator=generator) < 0.6, labels, (labels + 1) % 6
    )
    labels[torch.rand(labels.shape, generator=generator) < 0.2] = IGNORE
    both, one, right, total = [0] * 7, [0] * 7, 0, 0
    for truth, guess in zip(labels.flatten().tolist(), predictions.flatten().tolist(), strict=True):
        if truth == IGNORE:
            continue
        total += 1
        right += truth == guess
        for label in range(7):
            both[label] += truth == label and guess == label
            one[label] += truth == label or guess == label
    expected = [100 * b / o if o else math.nan for b, o in zip(both, one, strict=True)]
    score = segmentation_score(predictions, labels, 7)
    assert score.iou == pytest.approx(expected, nan_ok=True)
    assert expected[5] == 0
    assert math.isnan(expected[6])
    assert score.miou == pytest.approx(sum(expected[:6]) / 6)
    assert score.accuracy == pytest.approx(100 * right / total)


def test_shares_equal_a_slow_loop():
    rng = np.random.default_rng(0)
    labels = rng.choice([0, 1, 2, IGNORE], (2, 6, 12))
    shares = class_shares(torch.from_numpy(labels.astype(np.uint8)), (2, 3), 3)
    slow = [
        [(labels[n, 3 * i : 3 * i + 3, 4 * j : 4 * j + 4] == c).mean() for c in range(3)]
        for n in range(2)
        for i in range(2)
        for j in range(3)
    ]
    torch.testing.assert_close(shares, torch.tensor(slow, dtype=torch.float32))


def logistic_problem():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(200, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(200, 3, generator=generator, dtype=torch.float64)
    weights = torch.rand(200, 1, generator=generator, dtype=torch.float64)
    return features, (2 * features[:, :3] + noise).softmax(1) * weights


def test_the_fitted_probe_is_the_minimum_that_scipy_finds():
    optimize = pytest.importorskip("scipy.optimize")
    features, shares = logistic_problem()
    x = ((features - features.mean(0)) / features.std(0, correction=0)).numpy()
    weights = (shares / shares.sum()).numpy()

    def loss(flat):
        logits = x @ flat[:15].reshape(5, 3) + flat[15:]
        normaliser = np.log(np.exp(logits).sum(1, keepdims=True))
        return 0.005 * (flat[:15] ** 2).sum() - (weights * (logits - normaliser)).sum()

    found = optimize.minimize(loss, np.zeros(18), tol=1e-9).x
    logits = torch.from_numpy(x @ found[:15].reshape(5, 3) + found[15:])
    probe = fit_logistic(features, shares, weight_decay=0.01)
    torch.testing.assert_close(probe(features).softmax(1), logits.softmax(1), atol=1e-4, rtol=0)


def test_neither_scale_nor_offset_nor_a_constant_feature_matters():
    features, shares = logistic_problem()
    moved = torch.cat([1000 * features + 7, torch.full((200, 1), 3.0).double()], dim=1)
    probe, other = (fit_logistic(each, shares, weight_decay=0.01) for each in (features, moved))
    torch.testing.assert_close(other(moved), probe(features), atol=1e-4, rtol=0)


def test_features_are_the_patches_of_all_levels_whatever_the_batch_and_the_mode():
    encoder = encoder_of().train()
    encoder.blocks[0].eval()
    for block in encoder.blocks:
        block.drop_path.p = 0.5
    modes = [part.training for part in encoder.modules()]
    frames = torch.randint(256, (5, 24, 40, 3), dtype=torch.uint8)
    features = patch_features(encoder, frames, (2, 4), batch_size=2)
    assert [part.training for part in encoder.modules()] == modes
    assert features.shape == (5, 15, 48)
    assert not features.requires_grad
    floats = normalise(frames.permute(0, 3, 1, 2) / 255)
    two, four = encoder.eval().levels(floats, (2, 4))
    torch.testing.assert_close(features[..., :24], two[:, 1:].detach())
    torch.testing.assert_close(features[..., 24:], four[:, 1:].detach())
    torch.testing.assert_close(patch_features(encoder, floats, (2, 4)), features)


def test_the_same_images_give_the_same_numbers():
    encoder = encoder_of()
    frames = torch.randint(256, (6, 32, 32, 3), dtype=torch.uint8)
    data = (frames, random_patches(6, seed=1))
    first, second = (linear_segmentation(encoder, data, data, NUM_CLASSES) for _ in range(2))
    assert first[0] == second[0]
    assert torch.equal(first[1], second[1])


def test_labels_that_cannot_be_used_are_refused():
    labels = halves()
    with pytest.raises(MidwayError, match="label 3: is outside 0 to 2"):
        class_shares(labels, (4, 4), 3)
    with pytest.raises(MidwayError, match="32x32 pixels: 5x4 patches do not divide them"):
        class_shares(labels, (5, 4), NUM_CLASSES)
    nothing = torch.full_like(labels, IGNORE)
    with pytest.raises(MidwayError, match="no training pixel has a class"):
        fit_logistic(torch.ones(4, 2), class_shares(nothing[:1], (2, 2), 3), weight_decay=0.1)
    with pytest.raises(MidwayError, match="no pixel has a class"):
        segmentation_score(labels, nothing, NUM_CLASSES)
