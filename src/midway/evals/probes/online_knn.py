"""Online k-nearest-neighbour probe: segmentation mIoU of an encoder during training.

It applies the probe of `midway.evals.knn_segmentation` to a small fixed set of images, so the
scores of one run are comparable.
"""

from collections.abc import Iterable
from functools import partial

import torch
from torch import Tensor

from midway.data.segmentation.loader import WholeImage
from midway.data.segmentation.sample import LabelledSample, LabelsConfig, read_sample
from midway.evals.metrics.segmentation import confusion_matrix, score_of
from midway.evals.probes.knn import KnnConfig, Memory, build_memory, predict, side_by_side
from midway.models.encoders.base import Encoder
from midway.nn.eval_mode import evaluating
from midway.train.run import RunConfig


class KnnHealth:
    """Nearest-neighbour mIoU of an encoder's top level, as a callback of `fit`.

    Args:
        labels: Labelled images.
        encoder: Encoder in training; each call evaluates its current weights.
        run: Training run; the probe uses bfloat16 autocast if the run does.

    """

    def __init__(self, labels: LabelsConfig, encoder: Encoder, run: RunConfig) -> None:
        self._labels, self._encoder = labels, encoder
        is_mixed = run.precision == "bf16-mixed"
        self._config = KnnConfig(
            protocol="health",
            data=labels.data,
            memory_size=labels.memory_size,
            precision="bf16-mixed" if is_mixed else "32-true",
        )
        self._sample: LabelledSample | None = None

    def read(self) -> None:
        """Read the images, on the rank that computes the score.

        Raises:
            MidwayError: The images or labels cannot be read.

        """
        self._sample = read_sample(self._labels)

    def __call__(self) -> dict[str, float]:
        """Return `knn_miou` in percent; requires an earlier call of `read`.

        It does not draw from torch's global generators, does not communicate with other ranks, and
        restores the mode of each module of the encoder.
        """
        assert self._sample is not None
        sample, encoder = self._sample, self._encoder
        with evaluating(encoder):
            memory = build_memory(
                encoder,
                sample.train,
                self._config,
                num_classes=sample.num_classes,
                per_image=max(1, self._config.memory_size // len(sample.train)),
            )
            counts = _confusion(encoder, memory, sample.test, self._config, sample.num_classes)
        return {"knn_miou": score_of(counts).miou}


def _confusion(
    encoder: Encoder,
    memory: Memory,
    images: Iterable[WholeImage],
    config: KnnConfig,
    num_classes: int,
) -> Tensor:
    """Return the confusion matrix of this process.

    `SegmentationMetric` would wait for an all-reduce that other ranks never join.
    """
    device = memory.mean.device
    predicted = partial(predict, encoder, memory, config=config)
    counts = torch.zeros(num_classes, num_classes, dtype=torch.long, device=device)
    for each, classes in side_by_side(predicted, images, device):
        counts += confusion_matrix(classes, each.labels.to(device), num_classes)
    return counts.cpu()
