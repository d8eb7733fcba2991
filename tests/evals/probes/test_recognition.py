"""Linear and nearest-neighbour readouts of synthetic worlds, and their chance levels."""

import pytest
import torch

from midway.data.synthetic.shape_world import SHAPE_CLASSES, ShapeWorldConfig
from midway.evals.probes.baselines import ColourHistograms, PatchFeaturesConfig
from midway.evals.probes.recognition import (
    LabelledFrames,
    chance,
    chance_of_objects,
    knn_segmentation,
    recognition,
)
from midway.models.encoders.poodle import SpatialDecoder, SpatialDecoderConfig
from midway.models.encoders.vit import EncoderConfig

CONFIG = ShapeWorldConfig(height=48, width=64, num_objects=2, object_size=(0.8, 0.9))
NUM_CLASSES = len(SHAPE_CLASSES)
FRAMES = LabelledFrames.render(CONFIG, range(6), 2)


def coloured(frames: LabelledFrames) -> LabelledFrames:
    """Paint each class in a colour of its own."""
    palette = torch.tensor([[255 * (c >> bit & 1) for bit in range(3)] for c in range(NUM_CLASSES)])
    return LabelledFrames(
        images=palette[frames.classes].to(torch.uint8),
        classes=frames.classes,
        instances=frames.instances,
    )


def test_frames_are_evenly_spaced_over_the_video():
    world = CONFIG.build(2)
    for number, seconds in enumerate((0.0, 1.0)):
        frame = world.frame(seconds)
        assert (FRAMES.images[4 + number].numpy() == frame.image).all()
        assert (FRAMES.classes[4 + number].numpy() == frame.classes).all()
    assert len(FRAMES.images) == 12


def test_random_classes_keep_outlines_and_give_an_object_one_class():
    drawn = FRAMES.with_random_classes(NUM_CLASSES, seed=1)
    assert ((drawn.classes == 0) == (FRAMES.classes == 0)).all()
    assert (drawn.classes != FRAMES.classes).any()
    assert torch.equal(drawn.images, FRAMES.images)
    for classes, instances in zip(drawn.classes, drawn.instances, strict=True):
        for number in instances.unique():
            assert len(classes[instances == number].unique()) == 1
    again = FRAMES.with_random_classes(NUM_CLASSES, seed=1)
    assert torch.equal(drawn.classes, again.classes)


def test_both_readouts_read_classes_that_colours_show_and_no_others():
    frames = coloured(FRAMES)
    encoder = ColourHistograms(PatchFeaturesConfig(patch_size=8))
    score = recognition(encoder, frames, frames, NUM_CLASSES)
    assert score.linear.miou > 50
    assert score.knn.miou > 50
    assert score.predictions.shape == FRAMES.classes.shape
    plain = LabelledFrames.render(CONFIG, range(100, 106), 2)
    assert recognition(encoder, FRAMES, plain, NUM_CLASSES).linear.miou < 30


def test_neighbours_are_compared_after_removal_of_the_mean():
    """A constant added to all features changes nothing."""

    class Shifted(ColourHistograms):
        def pixels(self, images):
            return super().pixels(images) + 100

    frames = coloured(FRAMES)
    scores = [
        knn_segmentation(kind(PatchFeaturesConfig()), frames, frames, NUM_CLASSES).miou
        for kind in (ColourHistograms, Shifted)
    ]
    assert scores[0] == pytest.approx(scores[1], abs=0.5)


def test_a_level_of_another_stride_than_the_encoders_is_read_at_its_own_grid():
    vit = EncoderConfig(image_size=(48, 64), patch_size=16, width=24, depth=2, heads=2)
    encoder = SpatialDecoder(SpatialDecoderConfig(backbone="vit", vit=vit, laterals=(1,)))
    assert encoder.strides((-2, -1)) == [16, 8]
    for level in (-2, -1):
        score = recognition(encoder, FRAMES, FRAMES, NUM_CLASSES, levels=(level,))
        assert 0 < score.knn.miou <= 100


def test_chance_is_the_share_of_the_most_frequent_class_over_the_classes():
    classes = torch.zeros(1, 2, 5, dtype=torch.long)
    classes[0, 0, :2] = 1
    frames = LabelledFrames(images=torch.zeros(1, 2, 5, 3), classes=classes, instances=classes)
    assert chance(frames, 3) == pytest.approx(100 * 0.8 / 2)


def test_exact_outlines_with_guessed_classes_score_more_than_the_background():
    assert chance(FRAMES, NUM_CLASSES) < chance_of_objects(FRAMES, NUM_CLASSES) < 60
