"""Multiply-adds of a method as table 9 of the paper counts them."""

from unittest.mock import patch

import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from midway.data.views.render import example_clips
from midway.methods.base import MethodConfig, build_method
from midway.models.encoders.vit import VisionTransformer


def giga_multiply_adds(config: MethodConfig, *, all_tokens: bool) -> float:
    """Return the multiply-adds of a sample's forward pass in units of 1e9, on the meta device.

    Args:
        config: Method to build and run.
        all_tokens: If True, the last block of a ViT computes all tokens, as in the published code;
            ours computes only the class token where nothing else is read.

    """
    with torch.device("meta"):
        method = build_method(config)
        clips = example_clips(method.spec, 2)
    forward = _of_all_tokens if all_tokens else VisionTransformer.forward
    with (
        patch.object(VisionTransformer, "forward", forward),
        FlopCounterMode(display=False) as counter,
    ):
        method.loss(clips)
    # Two operations are one multiply-add; two samples are counted.
    return counter.get_total_flops() / 4e9


def _of_all_tokens(vit: VisionTransformer, images: Tensor) -> Tensor:
    return vit.levels(images, (-1,))[0][:, 0]
