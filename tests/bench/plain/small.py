"""A small Midway method and a batch for it, for the tests of both training steps."""

from dataclasses import replace

import torch

from midway.data.views.render import Clips, example_clips
from midway.experiments.synthetic import BOTH_TERMS as CONFIG
from midway.methods.midway import Midway


def small_method(seed: int = 0, *, drop_path: float = 0.0) -> Midway:
    """Build the method with random weights and a random DINO centre."""
    torch.manual_seed(seed)
    network = replace(CONFIG.network, encoder=replace(CONFIG.network.encoder, drop_path=drop_path))
    method = Midway(replace(CONFIG, network=network))
    # Initial weights are so small that attention is nearly uniform, which would hide errors.
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("gain"):
                parameter += 0.05 * torch.randn_like(parameter)
    method.network.dino_loss.center.normal_()
    return method


def small_clips(batch: int = 2) -> Clips:
    """Return random views of a batch."""
    return example_clips(CONFIG.views.spec(), batch)
