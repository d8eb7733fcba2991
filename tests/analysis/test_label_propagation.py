"""Propagation of labels against a loop over patches, frames and neighbours."""

import math

import pytest
import torch
from torch.nn import functional as F

from midway.analysis import label_propagation
from midway.analysis.label_propagation import (
    PropagationConfig,
    hard_masks,
    neighbourhood,
    propagate,
    soft_labels,
)
from midway.errors import MidwayError

CONFIG = PropagationConfig(neighbours=3, radius=2, context_frames=2)


def _loop(features, first, config):
    """As the protocol reads: every patch of every frame on its own."""
    rows, columns = first.shape[1:]
    labels = [first]
    for number in range(1, len(features)):
        context = [0, *[n for n in range(number - config.context_frames, number) if n > 0]]
        found = torch.zeros_like(first)
        for y in range(rows):
            for x in range(columns):
                scored = []
                for frame in context:
                    for v in range(max(0, y - config.radius), min(rows, y + config.radius + 1)):
                        lowest = max(0, x - config.radius)
                        for u in range(lowest, min(columns, x + config.radius + 1)):
                            one, other = features[number][:, y, x], features[frame][:, v, u]
                            cosine = F.cosine_similarity(one, other, dim=0).item()
                            scored.append((cosine, labels[frame][:, v, u]))
                best = sorted(scored, key=lambda pair: -pair[0])[: config.neighbours]
                weights = [math.exp(cosine / config.temperature) for cosine, _ in best]
                for weight, (_, label) in zip(weights, best, strict=True):
                    found[:, y, x] += weight / sum(weights) * label
        labels.append(found)
    return labels[1:]


@pytest.mark.parametrize("at_once", [1024, 7])
def test_labels_agree_with_a_loop(monkeypatch, at_once):
    monkeypatch.setattr(label_propagation, "PATCHES_AT_ONCE", at_once)
    torch.manual_seed(0)
    features = torch.randn(5, 6, 5, 6)
    first = torch.rand(3, 5, 6).softmax(0)
    for found, expected in zip(
        propagate(features, first, CONFIG), _loop(features, first, CONFIG), strict=True
    ):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_neighbourhood_is_a_square_cut_off_at_the_border():
    near = neighbourhood((4, 5), 1).unflatten(0, (4, 5)).unflatten(2, (4, 5))
    assert near[0, 0].nonzero().tolist() == [[0, 0], [0, 1], [1, 0], [1, 1]]
    assert near[2, 3].sum() == 9


def test_masks_become_shares_of_patches_and_masks_again():
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[:4, :4], mask[4:, 4:6] = 3, 9
    labels = soft_labels(mask, [3, 9], (2, 2))
    assert labels[:, 0, 0].tolist() == [0, 1, 0]
    assert labels[:, 1, 1].tolist() == [0.5, 0, 0.5]
    assert set(hard_masks(labels, [3, 9], (8, 8)).unique().tolist()) == {0, 3, 9}


def test_dinos_published_labels_are_those_of_single_pixels():
    mask = torch.zeros(8, 8, dtype=torch.uint8)
    mask[:4, :4], mask[4:, 4:6] = 3, 9
    labels = soft_labels(mask, [3, 9], (2, 2), nearest=True)
    # The pixel at (6, 6) stands for the lower right patch.
    assert labels.argmax(0).tolist() == [[1, 0], [0, 0]]
    found = hard_masks(labels, [3, 9], (12, 12), patch=2)
    assert found.dtype == torch.uint8
    # Each of 4 x 4 pixels becomes 3 x 3.
    torch.testing.assert_close(
        found, found[::3, ::3].repeat_interleave(3, 0).repeat_interleave(3, 1)
    )
    assert found[0, 0] == 3


def test_faint_objects_are_stretched_before_they_compete():
    labels = torch.tensor([[[0.9, 0.7]], [[0.1, 0.3]]])
    assert hard_masks(labels, [5], (1, 2)).tolist() == [[0, 5]]


def test_what_is_no_protocol_is_refused():
    with pytest.raises(MidwayError, match="neighbours = 0; give 1 or more"):
        PropagationConfig(neighbours=0)
