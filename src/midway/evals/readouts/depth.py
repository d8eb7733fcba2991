"""Depth readout: a linear head over bins of depth on a frozen encoder, as in DINOv2.

The class token, which DINOv2 concatenates to each patch, is left out: encoders without one exist.
"""

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from midway.data.depth.images import NEAREST_METRES, DepthData
from midway.data.depth.loader import DepthBatch
from midway.evals.readouts.depth_protocols import DepthReadoutConfig
from midway.models.encoders.base import Encoder
from midway.models.heads.upernet import LinearReadout
from midway.nn.images import normalise
from midway.train.objective import Objective, ParameterGroup, StepOutput, parameter_groups

UPSAMPLING = 4
"""Factor by which logits are upsampled before they become depth."""
FLOOR = 0.1
"""Added to each rectified logit before the normalisation (AdaBins)."""
VARIANCE_SHARE, LOSS_SCALE = 0.85, 10.0
"""Weight of the squared mean of the log error, and factor of the loss (AdaBins)."""

EPSILON = 1e-4
"""Keeps the gradient of the square root finite; the loss of a perfect prediction stays 0."""


class DepthReadout(Objective):
    """Scale-invariant log loss of depth: a linear head weights bins, whose mean is the depth.

    Args:
        encoder: Frozen encoder.
        config: Levels and number of bins.
        data: Range of depth.

    Raises:
        MidwayError: The encoder lacks a level.

    """

    centres: Tensor
    """Centres of the bins in metres, shape (bins, 1, 1)."""

    def __init__(self, encoder: Encoder, config: DepthReadoutConfig, data: DepthData) -> None:
        super().__init__()
        self.config, self.max_metres = config, data.max_metres
        self.encoder = encoder
        encoder.resolved(config.levels)
        encoder.requires_grad_(False)
        self.head = LinearReadout(sum(encoder.widths(config.levels)), config.bins)
        places = (torch.arange(config.bins) + 0.5) / config.bins
        self.register_buffer("centres", (data.max_metres * places)[:, None, None])
        self.train()

    def train(self, mode: bool = True) -> "DepthReadout":
        """Set the training mode; the frozen encoder stays in evaluation mode."""
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, batch: DepthBatch) -> StepOutput:
        """Normalise a batch of crops on its device, and compute the loss."""
        predicted = self.depth(normalise(batch.images / 255))
        known = batch.depth > 0
        loss = scale_invariant_loss(predicted, batch.depth, known)
        with torch.no_grad():
            error = torch.where(known, predicted - batch.depth, 0)
            rmse = (error.square().sum() / known.sum()).sqrt()  # NaN without a known pixel
        return StepOutput(loss=loss, logs={"rmse": rmse})

    def depth(self, images: Tensor) -> Tensor:
        """Return depth in metres at the size of the images.

        Args:
            images: ImageNet-normalised, shape (B, 3, H, W). Sides that the encoder's stride does
                not divide are padded with the mean colour.

        Returns:
            Shape (B, H, W), float32.

        """
        height, width = images.shape[-2:]
        stride = self.encoder.stride
        images = F.pad(images, (0, -width % stride, 0, -height % stride))
        with torch.no_grad():
            maps = self.encoder.maps(images, self.config.levels)
        # Upsampling commutes with a linear layer, and bins are fewer than channels.
        logits = F.interpolate(self.head(maps)[0].float(), scale_factor=UPSAMPLING, mode="bilinear")
        weights = F.relu(logits) + FLOOR  # (B, bins, rows, columns)
        depth = (weights * self.centres).sum(1) / weights.sum(1)
        whole = F.interpolate(depth[:, None], images.shape[-2:], mode="bilinear")[:, 0]
        return whole[:, :height, :width]

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The frozen encoder."""
        return {"encoder": self.encoder}

    def parameter_groups(self) -> list[ParameterGroup]:
        """Return the groups of the head."""
        return parameter_groups(self.head, "head")


def scale_invariant_loss(predicted: Tensor, truth: Tensor, known: Tensor) -> Tensor:
    """Return AdaBins' form of the scale-invariant log loss (Eigen et al., 2014).

    10 * sqrt(mean(g^2) - 0.85 * mean(g)^2) with g = log(predicted) - log(truth), over the known
    pixels of the batch; 0 without any.

    Args:
        predicted: Depth in metres, shape (B, H, W).
        truth: True depth, of the same shape.
        known: Mask of the same shape.

    """
    count = known.sum().clamp(min=1)
    # Unknown pixels get the ratio 1, whose log is 0.
    ratio = torch.where(known, predicted, 1) / torch.where(known, truth, 1)
    g = ratio.clamp(min=NEAREST_METRES).log()
    variance = g.square().sum() / count - VARIANCE_SHARE * (g.sum() / count).square()
    return LOSS_SCALE * ((variance + EPSILON**2).sqrt() - EPSILON)
