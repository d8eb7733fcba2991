"""Where the network of an evaluation comes from: a run, a file, the hub, or fresh weights."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

import torch
import tyro

from midway.errors import MidwayError
from midway.models.dense_encoder import weights_hash
from midway.models.encoder_source import RANDOM
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.network_file import read_network_file
from midway.models.release import Told
from midway.models.weights import build


@dataclass(frozen=True, kw_only=True)
class NetworkSource:
    """Which network is evaluated."""

    run: str = ""
    """Run folder, release .pth, .ckpt, .safetensors, hub id, or random for a fresh ViT-S/16."""
    untrained: bool = False
    """Take the sizes of the network but fresh weights."""
    weights_seed: int = 0
    """Of fresh weights."""
    accelerator: Literal["auto", "cpu"] = "auto"
    """A GPU if there is one, or the CPU."""
    told: Annotated[Told, tyro.conf.OmitArgPrefixes] = field(default_factory=Told)
    """For a release file, where its arguments are silent or wrong."""


@dataclass(frozen=True, kw_only=True)
class OpenedNetwork:
    """A network with what tells which it is."""

    network: MidwayNetwork
    """In evaluation mode, on its device."""
    weights_sha256: str
    """Of names and values of its tensors, whatever file they were in."""


def open_network(source: NetworkSource) -> OpenedNetwork:
    """Network of a source; torch's global generator is left seeded if its weights are fresh.

    Raises:
        MidwayError: None is named, there is no such network, or it is not readable.

    """
    if not source.run:
        raise MidwayError(
            "no network: give a run folder or checkpoint by --run RUN, or --run random"
        )
    if source.run == RANDOM or source.untrained:
        is_random = source.run == RANDOM
        config = NetworkConfig() if is_random else read_network_file(source.run).config(source.told)
        torch.manual_seed(source.weights_seed)
        network = MidwayNetwork(config)
    else:
        network = build(read_network_file(source.run), source.told)
    use_gpu = source.accelerator == "auto" and torch.cuda.is_available()
    return OpenedNetwork(
        network=network.to("cuda" if use_gpu else "cpu").eval(),
        weights_sha256=weights_hash(network),
    )
