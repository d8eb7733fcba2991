"""A network small enough for any test."""

from dataclasses import replace

import torch

from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.vit import EncoderConfig
from midway.models.midway import HeadConfig, MidwayNetwork, NetworkConfig

ENCODER = EncoderConfig(
    image_size=(32, 32), patch_size=8, width=24, depth=4, heads=2, drop_path=0.0
)
DYNAMICS = DynamicsConfig(
    levels=(1, 2, 3),
    midway_width=12,
    midway_depth=2,
    forward_depth=3,
    num_latents=5,
    backward_heads=2,
    forward_heads=4,
)
HEAD = HeadConfig(hidden=16, bottleneck=8, num_prototypes=32)
HEADS = {"encoder_heads": 2, "midway_heads": 3, "backward_heads": 2, "forward_heads": 4}
"""What a release file without arguments does not tell."""


def tiny(**dynamics: object) -> NetworkConfig:
    """Four blocks of width 24 on 32-pixel images; keywords change the dynamics."""
    return NetworkConfig(encoder=ENCODER, dynamics=replace(DYNAMICS, **dynamics), head=HEAD)  # pyright: ignore[reportArgumentType]


def random_network(**dynamics: object) -> MidwayNetwork:
    """A tiny network in evaluation mode with every tensor drawn anew."""
    network = MidwayNetwork(tiny(**dynamics)).eval()
    for tensor in network.state_dict().values():
        tensor.normal_()
    return network


def same_weights(one: MidwayNetwork, two: MidwayNetwork) -> bool:
    """Whether two networks hold the same tensors."""
    mine, theirs = one.state_dict(), two.state_dict()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[k], theirs[k]) for k in mine)
