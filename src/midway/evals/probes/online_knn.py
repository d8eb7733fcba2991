"""How well nearest neighbours in labelled images are told apart, while a network trains.

The readout of `midway.evals.knn_segmentation` on a few images that stay the same, so that the
scores of one run compare with each other.
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
    """The mIoU of an encoder's top level by nearest neighbours; for `fit` to call.

    Args:
        labels: Which images.
        encoder: Looked at as it is whenever this is called.
        run: Whose precision, if that is bfloat16, the encoder is run in.

    """

    def __init__(self, labels: LabelsConfig, encoder: Encoder, run: RunConfig) -> None:
        self._labels, self._encoder = labels, encoder
        is_mixed = run.precision == "bf16-mixed"
        self._how = KnnConfig(
            protocol="health",
            data=labels.data,
            memory_size=labels.memory_size,
            precision="bf16-mixed" if is_mixed else "32-true",
        )
        self._sample: LabelledSample | None = None

    def read(self) -> None:
        """Read the images, on the rank that is going to score them.

        Raises:
            MidwayError: As `read_sample` does.

        """
        self._sample = read_sample(self._labels)

    def __call__(self) -> dict[str, float]:
        """`knn_miou` in percent; `read` has been called.

        Nothing is drawn from torch's generators and nothing is asked of other ranks, and each part
        of the encoder has its mode back.
        """
        assert self._sample is not None
        sample, encoder = self._sample, self._encoder
        with evaluating(encoder):
            memory = build_memory(
                encoder,
                sample.train,
                self._how,
                num_classes=sample.num_classes,
                per_image=max(1, self._how.memory_size // len(sample.train)),
            )
            counts = _confusion(encoder, memory, sample.test, self._how, sample.num_classes)
        return {"knn_miou": score_of(counts).miou}


def _confusion(
    encoder: Encoder,
    memory: Memory,
    images: Iterable[WholeImage],
    config: KnnConfig,
    num_classes: int,
) -> Tensor:
    """Pixels by true and predicted class, of this process alone.

    `SegmentationMetric` would sum over processes, of which the others are not here.
    """
    device = memory.mean.device
    predicted = partial(predict, encoder, memory, config=config)
    counts = torch.zeros(num_classes, num_classes, dtype=torch.long, device=device)
    for each, classes in side_by_side(predicted, images, device):
        counts += confusion_matrix(classes, each.labels.to(device), num_classes)
    return counts.cpu()
