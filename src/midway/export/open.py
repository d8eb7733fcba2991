"""Opening of the parts of a network to export."""

from dataclasses import dataclass
from typing import Literal

from midway.errors import MidwayError
from midway.export.heatmap import HeatmapPart
from midway.export.matching import MatchingPart
from midway.export.parts import EncoderPart, FlowPart, NetworkPart, Part
from midway.models.flow.network import flow_file, load_flow_network
from midway.models.midway import MidwayNetwork
from midway.models.weights.files import FLOW, open_safetensors
from midway.models.weights.load import NO_HINTS, build_network
from midway.models.weights.release import ReleaseHints
from midway.models.weights.sources import load_encoder, read_source

Kind = Literal["encoder", "network", "heatmap", "flow"]


@dataclass(frozen=True, kw_only=True)
class PartOptions:
    """Part of a network to export, and its options."""

    kind: Kind | None = None
    """Encoder, whole network, heatmaps of perturbation, or flow; by default all that is there."""
    weights: str = ""
    """Encoder to export: teacher (the EMA, default) or student."""
    size: tuple[int, int] | None = None
    """Height and width of the images in pixels; by default those of the training."""
    levels: tuple[int, ...] = ()
    """Levels of the encoder's maps, or the level of heatmaps or flow; by default the top one of the
    encoder, or the lowest one of the dynamics."""
    draws: int = 16
    """Random directions of a heatmap."""
    seed: int = 0
    """Seed of the directions."""
    radius: int = 5
    """Search radius of flow without finetuning, in patches."""


def open_part(name: str, options: PartOptions, hints: ReleaseHints = NO_HINTS) -> Part:
    """Open a part of a network, in evaluation mode on the CPU.

    Args:
        name: As for `midway.load_encoder`, or the file or run of a finetuned flow network.
        options: Part and its options.
        hints: Overrides for a release file.

    Raises:
        MidwayError: There is no such network, or it does not have this part.

    """
    if is_flow_network(name):
        return _of_flow_network(name, options)
    file = None if options.weights else read_source(name)
    if options.kind == "encoder" or not (file and file.has_network):
        if options.kind not in (None, "encoder"):
            raise MidwayError(
                f"{name}: part {options.kind} needs a whole Midway network without --weights; give "
                "one, or --part encoder"
            )
        encoder = load_encoder(name, weights=options.weights or "teacher", hints=hints)
        return EncoderPart(encoder, options.size or encoder.image_size, options.levels or (-1,))
    network = build_network(file, hints)
    size = options.size or network.encoder.image_size
    if options.kind in (None, "network"):
        return NetworkPart(network, size)
    level = _one_level(network, options.levels)
    if options.kind == "flow":
        return MatchingPart(network, size, level=level, radius=options.radius)
    return HeatmapPart(network, size, level=level, num_draws=options.draws, seed=options.seed)


def is_flow_network(name: str) -> bool:
    """Return whether a file or run is of a finetuned flow network."""
    file = flow_file(name)
    if file.suffix != ".safetensors" or not file.is_file():
        return False
    metadata, _ = open_safetensors(file)
    return FLOW in metadata


def _of_flow_network(name: str, options: PartOptions) -> Part:
    network = load_flow_network(name)
    if options.kind == "encoder":
        size = options.size or network.encoder.image_size
        return EncoderPart(network.encoder, size, options.levels or (-1,))
    if options.kind not in (None, "flow"):
        raise MidwayError(
            f"{name}: a flow network has no {options.kind}; give --part flow or encoder"
        )
    return FlowPart(network, options.size or network.config.crop)


def _one_level(network: MidwayNetwork, levels: tuple[int, ...]) -> int:
    if len(levels) > 1:
        raise MidwayError(f"levels {levels}: heatmaps and flow have one level; give one")
    return levels[0] if levels else network.config.dynamics.levels[0]
