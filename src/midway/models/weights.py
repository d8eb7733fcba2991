"""Load and save networks: release files, run folders, our checkpoints, .safetensors, the hub."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors

from midway.atomic import write_atomically
from midway.config import to_json
from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.network_file import NetworkFile, read_network_file
from midway.models.release import Told, to_release_name, unflatten_release


def load(
    path: str | Path,
    *,
    encoder_heads: int | None = None,
    midway_heads: int | None = None,
    backward_heads: int | None = None,
    forward_heads: int | None = None,
    image_size: tuple[int, int] | None = None,
) -> MidwayNetwork:
    """Network of a release `.pth`, a run folder, a `.ckpt`, a `.safetensors` file or a hub id.

    No code of a file is run, sizes come from the file, and every tensor must find its place.
    The keywords are for a release file whose arguments do not tell; they go before them.

    Args:
        path: File or folder, "owner/name" on the Hugging Face hub, or "synthetic-tiny", the small
            network that comes with the package.
        encoder_heads: Attention heads of the encoder; from the arguments' `arch` if None.
        midway_heads: Of the midway path; if None, from the arguments, else the published 3 where
            the widths are published ones.
        backward_heads: Of the backward layers; likewise, 6.
        forward_heads: Of the forward models; likewise, 6.
        image_size: Height and width in pixels; if None, from the arguments, else square.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        UnknownHeadsError: A number of heads is told nowhere.
        MidwayError: No such thing, not readable, or tensors left over on either side.

    """
    told = Told(
        encoder_heads=encoder_heads,
        midway_heads=midway_heads,
        backward_heads=backward_heads,
        forward_heads=forward_heads,
        image_size=image_size,
    )
    return build(read_network_file(path), told)


def build(file: NetworkFile, told: Told) -> MidwayNetwork:
    """Network of a file that is read, in evaluation mode.

    Raises:
        UnknownHeadsError: A number of heads is told nowhere.
        MidwayError: Names the file's tensors that are missing, left over or of another shape.

    """
    config = file.config(told)
    network = MidwayNetwork(config)
    state = network.state_dict()
    levels = config.dynamics.levels
    in_file = {to_release_name(n, levels) if file.is_release else n: n for n in state}
    tensors = file.tensors
    wrong_shape = [
        n for n in in_file.keys() & tensors if tensors[n].shape != state[in_file[n]].shape
    ]
    faults = [
        f"{len(names)} {fault} ({', '.join(sorted(names))})"
        for fault, names in (
            ("missing", in_file.keys() - tensors.keys()),
            ("unknown", tensors.keys() - in_file.keys()),
            ("of another shape", wrong_shape),
        )
        if names
    ]
    if faults:
        raise MidwayError(f"{file.path}: tensors do not match the network: {'; '.join(faults)}")
    network.load_state_dict({in_file[name]: tensor for name, tensor in tensors.items()})
    return network.eval()


def save(network: MidwayNetwork, path: Path, *, half: bool = False) -> None:
    """Write `.safetensors` (configuration in the header) or, for `.pth`, the release layout.

    Args:
        network: Left as it is.
        path: New, or replaced; its suffix tells the format.
        half: Round the weights to half precision, for a file of half the size.

    Raises:
        MidwayError: Another suffix, or a network that the release layout cannot hold.

    """
    if path.suffix not in (".safetensors", ".pth"):
        raise MidwayError(f"{path}: unknown format; give a name ending in .safetensors or .pth")
    tensors = {
        name: (tensor.half() if half else tensor).contiguous()
        for name, tensor in network.state_dict().items()
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        content = to_safetensors(tensors, {"midway": json.dumps(to_json(network.config))})
        write_atomically(path, lambda file: file.write(content))
    else:
        levels = network.config.dynamics.levels
        renamed = {to_release_name(name, levels): tensor for name, tensor in tensors.items()}
        parts = unflatten_release(renamed) | {"args": _release_args(network.config)}
        write_atomically(path, lambda file: torch.save(parts, file))


def _release_args(config: NetworkConfig) -> dict[str, Any]:
    """What `release_sizes` needs beside the shapes, under the release's names."""
    dynamics = config.dynamics
    if dataclasses.replace(dynamics, refinement=True, gate_input="previous") != dynamics:
        raise MidwayError(
            "the release layout cannot tell refinement off or gate_input 'own'; "
            "export to .safetensors"
        )
    arch = {3: "vit_tiny", 6: "vit_small", 12: "vit_base", 16: "vit_large"}
    return {
        "arch": arch.get(config.encoder.heads, "vit_custom"),
        "patch_size": config.encoder.patch_size,
        "drop_path_rate": config.encoder.drop_path,
        "global_crop_resolution": list(config.encoder.image_size),
        "motion_feature_levels": [level - 1 for level in config.levels],
        "midway_model_configs": {
            "num_motion_heads": dynamics.midway_heads,
            "num_feature_heads": dynamics.backward_heads,
            "num_pred_heads": dynamics.forward_heads,
        },
    }
