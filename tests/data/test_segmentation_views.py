"""Crops keep image and labels together; distortion equals a slow loop over pixels."""

import colorsys

import numpy as np
import pytest
import torch
from PIL import Image

from midway.data.segmentation import SegmentationData
from midway.data.segmentation_layouts import IGNORE
from midway.data.segmentation_views import (
    NEUTRAL,
    as_network_input,
    change_hsv,
    distort,
    draw_crop,
    draw_distortion,
    fitted_size,
    resampled,
)

PLAIN = SegmentationData(
    dataset="camvid", crop=(24, 32), scale=(80, 48), ratio=(1, 1), p_flip=0, distort=False
)


def scene(height=48, width=80, seed=0):
    """Blocks of 8 pixels: an image whose red is 20 times the class."""
    blocks = np.random.default_rng(seed).integers(0, 11, (-(-height // 8), -(-width // 8)))
    classes = blocks.repeat(8, 0).repeat(8, 1)[:height, :width].astype(np.uint8)
    return Image.fromarray((20 * classes)[..., None].repeat(3, 2)), classes


def changed(**changes):
    return SegmentationData(**(vars(PLAIN) | changes))


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((1280, 720), (2048, 1024), (1820, 1024)),
        ((2048, 1024), (2048, 1024), (2048, 1024)),
        ((683, 512), (2048, 512), (683, 512)),
        ((400, 300), (2048, 512), (683, 512)),
        ((3000, 500), (2048, 512), (2048, 341)),
        ((480, 360), (360, 480), (480, 360)),
    ],
)
def test_images_are_fitted_in_a_longest_and_a_shortest_side(size, scale, expected):
    assert fitted_size(size, scale) == expected


def test_a_crop_at_the_scale_of_the_image_is_a_piece_of_it():
    image, classes = scene()
    crop = draw_crop(image, classes, PLAIN, np.random.default_rng(0))
    assert crop.image.shape == (24, 32, 3)
    places = [
        (y, x)
        for y in range(48 - 24 + 1)
        for x in range(80 - 32 + 1)
        if np.array_equal(classes[y : y + 24, x : x + 32], crop.classes)
    ]
    assert len(places) == 1
    (y, x) = places[0]
    assert np.array_equal(np.asarray(image)[y : y + 24, x : x + 32], crop.image)
    assert crop.distortion == NEUTRAL


def test_the_window_of_a_resized_image_equals_resizing_all_of_it():
    image, classes = scene(seed=3)
    for size in ((131, 77), (80, 48), (41, 25)):
        whole = np.asarray(image.resize(size, Image.Resampling.BILINEAR)).astype(int)
        window = (7, 3, size[0] - 2, size[1] - 1)
        part = np.asarray(resampled(image, size, window, Image.Resampling.BILINEAR))
        assert np.abs(part - whole[3 : size[1] - 1, 7 : size[0] - 2]).max() <= 1
        labels = resampled(Image.fromarray(classes), size, window, Image.Resampling.NEAREST)
        rows, columns = range(3, size[1] - 1), range(7, size[0] - 2)
        slow = [
            [classes[int((y + 0.5) * 48 / size[1]), int((x + 0.5) * 80 / size[0])] for x in columns]
            for y in rows
        ]
        # Pillow rounds the few that lie between two pixels either way.
        assert (np.asarray(labels) == np.array(slow)).mean() > 0.98


def test_labels_stay_on_what_they_label_at_every_scale_and_flip():
    image, classes = scene(seed=1)
    data = changed(ratio=(0.5, 2.0), p_flip=0.5)
    widths = set()
    for seed in range(20):
        crop = draw_crop(image, classes, data, np.random.default_rng(seed))
        # Away from the borders of the blocks the red is exactly that of the class.
        agree = crop.image[..., 0] == 20 * crop.classes
        assert agree.mean() > 0.3
        widths.add(crop.classes.shape)
    assert widths == {(24, 32)}


def test_half_of_the_crops_are_flipped():
    image, classes = scene()
    whole = changed(crop=(48, 80), p_flip=0.5)
    flipped = 0
    for seed in range(200):
        crop = draw_crop(image, classes, whole, np.random.default_rng(seed))
        is_flipped = not np.array_equal(crop.classes, classes)
        assert np.array_equal(crop.classes, classes[:, ::-1] if is_flipped else classes)
        assert np.array_equal(crop.image[..., 0], 20 * crop.classes)
        flipped += is_flipped
    assert 70 < flipped < 130


def test_a_crop_that_one_class_fills_is_drawn_anew():
    classes = np.zeros((48, 800), np.uint8)
    classes[:, 700:] = np.random.default_rng(0).integers(1, 11, (48, 100))
    image = Image.fromarray(classes[..., None].repeat(3, 2))
    data = {"crop": (48, 80), "scale": (800, 48)}
    draws = {
        share: [
            draw_crop(
                image, classes, changed(max_class_share=share, **data), np.random.default_rng(s)
            )
            for s in range(60)
        ]
        for share in (0.75, 1.01)
    }
    shares = {
        share: np.array([(crop.classes == 0).mean() for crop in crops])
        for share, crops in draws.items()
    }
    too_full = {share: ((found >= 0.75) & (found < 1)).sum() for share, found in shares.items()}
    assert too_full[1.01] > 5
    assert too_full[0.75] == 0
    # After ten draws in vain the last one is taken.
    assert (shares[0.75] == 1).any()


def test_the_range_of_scales_is_the_ratio_of_the_base_scale():
    classes = np.arange(256, dtype=np.uint8)[None].repeat(256, 0)
    classes[classes == IGNORE] = 0
    image = Image.fromarray(classes[..., None].repeat(3, 2))
    data = changed(crop=(64, 64), scale=(256, 256), ratio=(0.5, 2.0))
    factors = []
    for seed in range(300):
        row = draw_crop(image, classes, data, np.random.default_rng(seed)).classes[0].astype(int)
        factors.append(63 / (row[-1] - row[0]) if row[-1] > row[0] else np.nan)
    assert np.nanmin(factors) == pytest.approx(0.5, abs=0.05)
    assert np.nanmax(factors) == pytest.approx(2.0, abs=0.15)
    assert np.nanmean(factors) == pytest.approx(1.25, abs=0.1)


def test_small_images_give_small_crops():
    image, classes = scene(16, 80)
    crop = draw_crop(image, classes, changed(scale=(80, 16)), np.random.default_rng(0))
    assert crop.classes.shape == (16, 32)


def test_saturation_and_hue_equal_a_slow_loop():
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(2, 3, 5, 7, generator=generator)
    images[0, :, 0] = 0.5  # grey, black, white
    images[0, :, 1] = 0
    images[0, :, 2] = 1
    factors, turns = [0.6, 1.4], [0.1, -0.08]
    changed_images = change_hsv(images, torch.tensor(factors).view(2, 1, 1, 1), torch.tensor(turns))
    for n in range(2):
        for y in range(5):
            for x in range(7):
                h, s, v = colorsys.rgb_to_hsv(*images[n, :, y, x].tolist())
                slow = colorsys.hsv_to_rgb((h + turns[n]) % 1, min(s * factors[n], 1), v)
                assert changed_images[n, :, y, x].tolist() == pytest.approx(slow, abs=1e-5)


def test_each_part_of_the_distortion_is_clipped():
    images = torch.full((3, 3, 1, 1), 0.8)
    parameters = torch.tensor(
        [[0.1, 1.5, 1.0, 1.0, 0.0], [-0.1, 1.0, 1.5, 1.0, 0.0], [0, 0.5, 1.0, 1.0, 0.0]]
    )
    assert distort(images, parameters)[:, 0, 0, 0].tolist() == pytest.approx([1.0, 1.0, 0.4])
    neutral = torch.tensor([NEUTRAL]).expand(3, -1)
    torch.testing.assert_close(distort(images, neutral), images)


def test_parts_of_the_distortion_are_drawn_half_of_the_time_within_their_ranges():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_distortion(rng) for _ in range(2000)])
    used = (drawn != np.array(NEUTRAL)).mean(0)
    assert used == pytest.approx([0.5, 0.25, 0.25, 0.5, 0.5], abs=0.05)
    assert not ((drawn[:, 1] != 1) & (drawn[:, 2] != 1)).any()
    assert drawn.min(0) == pytest.approx([-32 / 255, 0.5, 0.5, 0.5, -0.1], abs=0.02)
    assert drawn.max(0) == pytest.approx([32 / 255, 1.5, 1.5, 1.5, 0.1], abs=0.02)


def test_what_is_outside_an_image_is_zero_whatever_its_distortion():
    images = torch.full((2, 3, 8, 8), 128, dtype=torch.uint8)
    parameters = torch.tensor([(0.1, 1.0, 1.2, 1.0, 0.0), NEUTRAL])
    sizes = torch.tensor([[8, 5], [6, 8]])
    given = as_network_input(images, parameters, sizes)
    assert (given[0, :, :, 5:] == 0).all()
    assert (given[1, :, 6:] == 0).all()
    assert (given[0, :, :, :5] != 0).all()
    expected = [(128 / 255 - m) / s for m, s in ((0.485, 0.229), (0.456, 0.224), (0.406, 0.225))]
    assert given[1, :, 0, 0].tolist() == pytest.approx(expected, abs=1e-5)
