"""Windows cover every pixel; what they overlap is averaged."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.evals.readouts.inference import InferenceConfig, classes_at, predict_logits, windows


@given(st.integers(1, 60), st.integers(1, 40), st.data())
def test_windows_cover_a_side_within_it(length, window, data):
    stride = data.draw(st.integers(1, window))
    places = windows(length, window, stride)
    covered = {pixel for start, end in places for pixel in range(start, end)}
    assert covered == set(range(length))
    assert all(end - start == min(window, length) for start, end in places)
    starts = [start for start, _ in places]
    assert all(b - a <= stride for a, b in itertools.pairwise(starts))


def test_the_windows_of_a_bdd_image_are_those_of_mmsegmentation():
    assert windows(1280, 512, 341) == [(0, 512), (341, 853), (682, 1194), (768, 1280)]
    assert windows(720, 512, 341) == [(0, 512), (208, 720)]
    assert windows(512, 512, 341) == [(0, 512)]
    assert windows(375, 512, 341) == [(0, 375)]


def test_a_constant_field_is_merged_to_itself():
    config = InferenceConfig(window=(8, 8), stride=(5, 5), batch_size=3)
    merged = predict_logits(lambda x: x[:, :1] * 0 + 2, torch.randn(3, 21, 30), config)
    torch.testing.assert_close(merged, torch.full((1, 21, 30), 2.0))


def test_logits_of_overlapping_windows_are_averaged_as_by_a_slow_loop():
    image = torch.randn(3, 21, 18, generator=torch.Generator().manual_seed(0))
    config = InferenceConfig(window=(8, 10), stride=(5, 6), batch_size=2)

    def logits_of(images):
        # Depends on the whole window, so that windows disagree where they overlap.
        return images + images.mean((1, 2, 3), keepdim=True)

    total, counts = torch.zeros(3, 21, 18), torch.zeros(21, 18)
    for top in (0, 5, 10, 13):
        for left in (0, 6, 8):
            part = image[:, top : top + 8, left : left + 10]
            total[:, top : top + 8, left : left + 10] += part + part.mean()
            counts[top : top + 8, left : left + 10] += 1
    torch.testing.assert_close(predict_logits(logits_of, image, config), total / counts)


def test_whole_images_go_through_at_once():
    seen = []
    config = InferenceConfig(mode="whole", window=(4, 4), stride=(2, 2))
    predict_logits(lambda x: seen.append(x.shape) or x, torch.zeros(3, 21, 18), config)
    assert seen == [(1, 3, 21, 18)]


def test_classes_are_decided_at_the_size_of_the_labels():
    logits = torch.randn(4, 6, 8, generator=torch.Generator().manual_seed(0))
    stretched = F.interpolate(logits[None], (13, 9), mode="bilinear", align_corners=False)[0]
    assert torch.equal(classes_at(logits, (13, 9)), stretched.argmax(0))


def test_windows_that_would_leave_pixels_out_are_refused():
    with pytest.raises(MidwayError, match="longer than the window"):
        InferenceConfig(window=(8, 8), stride=(8, 9))
    with pytest.raises(MidwayError, match="must be 1 or more"):
        InferenceConfig(batch_size=0)
