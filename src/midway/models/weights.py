"""Load and save networks: release files, run folders, our checkpoints, .safetensors, the hub."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from midway.config import from_json, read_json, to_json
from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.release import (
    config_from_release,
    flatten_release,
    to_release_name,
    unflatten_release,
)
from midway.models.safe_pickle import read_checkpoint

HUB_FILE = "model.safetensors"


def load(path: str | Path, *, encoder_heads: int | None = None) -> MidwayNetwork:
    """Network of a release `.pth`, a run folder, a `.ckpt`, a `.safetensors` file or a hub id.

    No code of a file is run, sizes come from the file, and every tensor must find its place.

    Args:
        path: File or folder, or "owner/name" on the Hugging Face hub.
        encoder_heads: Attention heads of the encoder, for a release file that does not tell.

    Returns:
        The network in evaluation mode, on the CPU, in float32.

    Raises:
        MidwayError: No such thing, not readable, or tensors left over on either side.

    """
    file = _find_file(path)
    if file.suffix == ".safetensors":
        config, tensors = _read_safetensors(file)
    else:
        contents = read_checkpoint(file)
        if "motion_loss" in contents:
            return _load_release(file, contents, encoder_heads)
        config, tensors = _read_own_checkpoint(file, contents)
    network = MidwayNetwork(config)
    load_strictly(network, tensors, where=file)
    return network.eval()


def load_strictly(network: MidwayNetwork, tensors: Mapping[str, Tensor], *, where: Path) -> None:
    """Copy `tensors` into the network; every name and shape must match.

    Raises:
        MidwayError: Names the tensors that are missing, left over or of another shape.

    """
    state = network.state_dict()
    wrong_shape = [n for n in state if n in tensors and tensors[n].shape != state[n].shape]
    faults = [
        f"{len(names)} {fault} ({', '.join(sorted(names))})"
        for fault, names in (
            ("missing", state.keys() - tensors.keys()),
            ("unknown", tensors.keys() - state.keys()),
            ("of another shape", wrong_shape),
        )
        if names
    ]
    if faults:
        raise MidwayError(f"{where}: tensors do not match the network: {'; '.join(faults)}")
    network.load_state_dict(dict(tensors))


def save(network: MidwayNetwork, path: Path) -> None:
    """Write `.safetensors` (configuration in the header) or, for `.pth`, the release layout.

    Raises:
        MidwayError: Another suffix, or a network that the release layout cannot hold.

    """
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        save_file(tensors, path, metadata={"midway": json.dumps(to_json(network.config))})
    elif path.suffix == ".pth":
        levels = network.config.dynamics.levels
        renamed = {to_release_name(name, levels): tensor for name, tensor in tensors.items()}
        torch.save(unflatten_release(renamed) | {"args": _release_args(network.config)}, path)
    else:
        raise MidwayError(f"{path}: unknown format; give a name ending in .safetensors or .pth")


def _find_file(path: str | Path) -> Path:
    found = Path(path)
    if found.is_file():
        return found
    if found.is_dir():
        return _newest_checkpoint(found)
    if found.suffix or str(path).count("/") != 1 or str(path).startswith((".", "/")):
        raise MidwayError(f"{path}: no such file or folder; check the path")
    try:
        return Path(hf_hub_download(str(path), HUB_FILE))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError):
        raise MidwayError(
            f"{path}: no such folder here, and {HUB_FILE} cannot be had from the hub; check both"
        ) from None


def _newest_checkpoint(folder: Path) -> Path:
    checkpoints = sorted(folder.glob("checkpoints/*.ckpt")) or sorted(folder.glob(HUB_FILE))
    if not checkpoints:
        raise MidwayError(f"{folder}: no checkpoints/*.ckpt in it; give a run folder or a file")
    return checkpoints[-1]


def _read_safetensors(file: Path) -> tuple[NetworkConfig, dict[str, Tensor]]:
    try:
        with safe_open(file, framework="pt") as opened:
            header = (opened.metadata() or {}).get("midway")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise MidwayError(f"{file}: no readable safetensors file ({error})") from None
    if header is None:
        raise MidwayError(f"{file}: no Midway configuration in its header; not written by midway")
    return from_json(NetworkConfig, json.loads(header), where=str(file)), tensors


def _read_own_checkpoint(
    file: Path, contents: dict[str, Any]
) -> tuple[NetworkConfig, dict[str, Tensor]]:
    """Network of a checkpoint in a run folder; its sizes stand in the run's config.json."""
    prefix = "network."
    tensors = {
        name.removeprefix(prefix): tensor
        for name, tensor in contents.get("model", {}).items()
        if name.startswith(prefix)
    }
    if not tensors:
        raise MidwayError(f"{file}: holds no Midway network; keys are {', '.join(contents)}")
    config = read_json(file.parent.parent / "config.json")
    network = config.get("method", {}).get("network")
    if network is None:
        raise MidwayError(f"{file.parent.parent / 'config.json'}: no method.network in it")
    return from_json(NetworkConfig, network, where="config.json: method.network"), tensors


def _load_release(file: Path, contents: dict[str, Any], heads: int | None) -> MidwayNetwork:
    tensors = flatten_release(contents)
    args = contents.get("args") or {}
    config = config_from_release(tensors, args, encoder_heads=heads)
    network = MidwayNetwork(config)
    ours = {to_release_name(name, config.dynamics.levels): name for name in network.state_dict()}
    # A name that is not in the layout stays as it is, so that the report shows it.
    load_strictly(network, {ours.get(n, n): tensor for n, tensor in tensors.items()}, where=file)
    return network.eval()


def _release_args(config: NetworkConfig) -> dict[str, Any]:
    """What `config_from_release` needs beside the shapes, under the release's names."""
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
