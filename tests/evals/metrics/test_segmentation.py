"""Scores equal a slow loop over pixels, in one process and in two."""

import math
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.multiprocessing.spawn import spawn

from midway.errors import MidwayError
from midway.evals.metrics.segmentation import SegmentationMetric, class_table, score_of, scores

CPU = torch.device("cpu")
NUM_CLASSES = 7
"""The last is in neither labels nor predictions, the one before in predictions alone."""


def random_images():
    """Images of various sizes: labels with a fifth ignored, predictions right for six in ten."""
    generator = torch.Generator().manual_seed(0)
    for height, width in ((9, 11), (4, 5), (13, 2)):
        labels = torch.randint(5, (height, width), generator=generator)
        right = torch.rand(labels.shape, generator=generator) < 0.6
        predictions = torch.where(right, labels, (labels + 1) % 6)
        labels[torch.rand(labels.shape, generator=generator) < 0.2] = 255
        yield predictions.to(torch.uint8), labels.to(torch.uint8)


def slow_confusion(images):
    counts = [[0] * NUM_CLASSES for _ in range(NUM_CLASSES)]
    for predictions, labels in images:
        for guess, truth in zip(
            predictions.flatten().tolist(), labels.flatten().tolist(), strict=True
        ):
            if truth != 255:
                counts[truth][guess] += 1
    return counts


def confusion_of(images):
    metric = SegmentationMetric(NUM_CLASSES, CPU)
    for predictions, labels in images:
        metric.add(predictions, labels)
    return metric.confusion()


def test_counts_and_scores_equal_a_slow_loop():
    counts = slow_confusion(random_images())
    confusion = confusion_of(random_images())
    assert confusion.tolist() == counts
    ious = []
    for c in range(NUM_CLASSES):
        both = counts[c][c]
        either = sum(counts[c]) + sum(row[c] for row in counts) - both
        ious.append(100 * both / either if either else math.nan)
    score = score_of(confusion)
    assert score.iou == pytest.approx(ious, nan_ok=True)
    assert (score.iou[5], math.isnan(score.iou[6])) == (0, True)
    assert score.miou == pytest.approx(sum(ious[:6]) / 6)
    right, total = sum(counts[c][c] for c in range(NUM_CLASSES)), sum(map(sum, counts))
    assert score.accuracy == pytest.approx(100 * right / total)


def test_a_perfect_prediction_scores_100():
    score = score_of(confusion_of((labels, labels) for _, labels in random_images()))
    assert (score.miou, score.accuracy) == (100, 100)


def test_the_mean_is_over_the_dataset_and_not_over_images():
    small, large = torch.zeros(1, 1), torch.zeros(1, 99)
    score = score_of(confusion_of([(small + 1, small), (large, large)]))
    assert score.accuracy == pytest.approx(99)


def test_the_table_has_what_each_class_got():
    table = class_table(torch.tensor([[6, 2, 0], [1, 1, 0], [0, 0, 0]]), ("a", "b", "c"))
    assert table["a"] == {"iou": round(100 * 6 / 9, 4), "accuracy": 75.0, "pixels": 80.0}
    assert table["b"] == {"iou": 25.0, "accuracy": 50.0, "pixels": 20.0}
    assert table["c"] == {"iou": None, "accuracy": None, "pixels": 0.0}


def test_no_labelled_pixel_is_no_score():
    ignored = torch.full((4, 5), 255)
    with pytest.raises(MidwayError, match="no test pixel has a class"):
        scores(confusion_of([(ignored * 0, ignored)]), "abcdefg")


def _one_of_two(rank: int, folder: str) -> None:
    distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    confusion = confusion_of([*random_images()][rank::2])
    perfect = confusion_of([(labels, labels) for _, labels in random_images()][rank::2])
    torch.save((confusion, perfect), f"{folder}/{rank}.pt")
    distributed.destroy_process_group()


@pytest.mark.slow
def test_two_processes_count_what_one_does(tmp_path: Path):
    spawn(_one_of_two, (str(tmp_path),), nprocs=2)
    for rank in range(2):
        confusion, perfect = torch.load(tmp_path / f"{rank}.pt", weights_only=True)
        assert confusion.tolist() == slow_confusion(random_images())
        assert score_of(perfect).miou == 100
