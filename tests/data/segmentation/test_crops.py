"""Crops keep image and labels together, drawn by the published rules, without torch."""

import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from midway.data.segmentation.classes import IGNORE
from midway.data.segmentation.crops import (
    NEUTRAL,
    draw_crop,
    draw_distortion,
    fitted_size,
    resampled,
)
from midway.data.segmentation.images import SegmentationData

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


def test_labels_stay_aligned_with_the_image_at_every_scale_and_flip():
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


def test_parts_of_the_distortion_are_drawn_half_of_the_time_within_their_ranges():
    rng = np.random.default_rng(0)
    drawn = np.array([draw_distortion(rng) for _ in range(2000)])
    used = (drawn != np.array(NEUTRAL)).mean(0)
    assert used == pytest.approx([0.5, 0.25, 0.25, 0.5, 0.5], abs=0.05)
    assert not ((drawn[:, 1] != 1) & (drawn[:, 2] != 1)).any()
    assert drawn.min(0) == pytest.approx([-32 / 255, 0.5, 0.5, 0.5, -0.1], abs=0.02)
    assert drawn.max(0) == pytest.approx([32 / 255, 1.5, 1.5, 1.5, 0.1], abs=0.02)


def test_reading_processes_stay_without_torch():
    code = "import sys, midway.data.segmentation.crops; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
