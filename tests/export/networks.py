"""Networks of the sizes of a tiny network and of ViT-S, in few blocks or whole."""

import torch
from torch import nn

from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.vit import EncoderConfig
from midway.models.midway import HeadConfig, MidwayNetwork, NetworkConfig

DEPTHS = {"levels": (1,), "midway_depth": 1, "forward_depth": 2}
CONFIGS = {
    "tiny": (
        EncoderConfig(image_size=(32, 32), patch_size=8, width=24, depth=2, heads=2),
        DynamicsConfig(midway_width=12, num_latents=2, backward_heads=2, forward_heads=2, **DEPTHS),
    ),
    "vit_small": (EncoderConfig(image_size=(64, 64), depth=2), DynamicsConfig(**DEPTHS)),
    "whole_vit_small": (EncoderConfig(image_size=(64, 96)), DynamicsConfig()),
}
HEAD = HeadConfig(hidden=16, bottleneck=8, num_prototypes=32)


def network_of(name: str) -> MidwayNetwork:
    """A network in evaluation mode whose blocks and positions all matter.

    Biases of encoders are drawn around 0. Around 1/2 the mean of a token is six times its standard
    deviation (0.8 times in synthetic-tiny), which costs torch's layer norm digits: its flow is then
    3e-4 pixels from that in float64 (docs/EXPORT.md).
    """
    torch.manual_seed(0)
    encoder, dynamics = CONFIGS[name]
    network = MidwayNetwork(NetworkConfig(encoder=encoder, dynamics=dynamics, head=HEAD))
    # From a normal distribution, because fresh position tables of the dynamics are zero.
    std = 0.5 * encoder.width**-0.5
    for key, parameter in network.named_parameters():
        is_centred = parameter.ndim > 1 or ("encoder." in key and key.endswith("bias"))
        nn.init.normal_(parameter, mean=0.0 if is_centred else 0.5, std=std)
    return network.eval()
