"""Find and read files of weights in any supported format: runs, exports, release files, the hub."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from safetensors import SafetensorError, safe_open
from torch import Tensor

from midway.config import from_json, read_json
from midway.errors import MidwayError, one_line
from midway.models.encoders.base import ENCODERS, EncoderSpec
from midway.models.pair_encoders.base import PAIR_ENCODER, PairEncoderSpec
from midway.models.weights.check import shown
from midway.models.weights.hub import HUB_FILE, fetch, is_address
from midway.models.weights.release import flatten_release, is_release
from midway.models.weights.safe_pickle import read_checkpoint
from midway.models.weights.sniff import is_sharded, wrong_kind
from midway.models.weights.unwrap import flatten

BUNDLED = Path(__file__).parents[2] / "networks"
"""Folder of the networks in the package, ``NAME.safetensors``."""
NETWORK = "midway"
"""Key of a Midway network's sizes in the header of our .safetensors files, and prefix of our other
keys."""
FLOW = "midway_flow"
"""Key of a flow network's sizes in the header of our .safetensors files."""
EXPORTS = ("last.safetensors", "best.safetensors", HUB_FILE)
"""Files of weights in a folder without checkpoints, from the least preferred."""
RUN_PREFIX = "network."
"""Prefix of the tensor names of a Midway network in checkpoints of its run."""


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """Contents of a checkpoint or file of weights."""

    path: Path
    layout: Literal["run", "own", "release", "plain"]
    """Checkpoint of a run of any method, our .safetensors, a release .pth, or a file of someone
    else without configuration."""
    tensors: Mapping[str, Any]
    """Tensors by their names in the file."""
    sizes: Mapping[str, Any] | None = None
    """Fields of `NetworkConfig`, if a run or own file contains a Midway network."""
    args: object = None
    """Arguments of a file in the release layout."""
    encoders: Mapping[str, EncoderSpec] = field(default_factory=dict)
    """Encoders by name, described by files since version 0.2."""
    pair_encoder: PairEncoderSpec | None = None
    """Pretrained network between two frames, if a run describes one."""
    header: Mapping[str, str] = field(default_factory=dict)
    """Metadata of a .safetensors file."""

    @property
    def has_network(self) -> bool:
        """True if the file contains a Midway network, not only encoders."""
        return self.layout == "release" or self.sizes is not None


def read_weights(name: str | Path) -> WeightsFile:
    """Read a file of weights, or the newest checkpoint of a run folder.

    A name that is no file or folder may be that of a network (`midway list networks`), a hub id or
    a web address. No code in the file is run.

    Raises:
        MidwayError: There is no such file, folder or model, or it is not readable.

    """
    file = _find_file(name)
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    contents = read_checkpoint(file)
    if is_release(contents):
        tensors = flatten_release(contents, where=str(file))
        return WeightsFile(path=file, layout="release", tensors=tensors, args=contents.get("args"))
    if _is_run(file, contents):
        return _read_run(file, contents)
    tensors = flatten(contents)
    if not tensors:
        raise MidwayError(f"{file}: contains no tensors; its keys are {shown(contents)}")
    return WeightsFile(path=file, layout="plain", tensors=tensors)


def open_safetensors(file: Path) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Read the metadata and the tensors of a `.safetensors` file.

    Raises:
        MidwayError: The file is not readable.

    """
    try:
        if fault := wrong_kind(file):
            raise MidwayError(f"{file}: {fault}")
        with safe_open(file, framework="pt") as opened:
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
            return opened.metadata() or {}, tensors
    except (SafetensorError, OSError) as error:
        raise MidwayError(f"{file}: not a readable safetensors file ({one_line(error)})") from None


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _find_file(name: str | Path) -> Path:
    found = Path(name)
    try:
        if found.is_file():
            return found
        if found.is_dir():
            return _newest_checkpoint(found)
    except OSError as error:
        raise MidwayError(f"{name}: cannot be read ({error.strerror}); check the path") from None
    # Files and folders take precedence over the names in the package, and these over the hub.
    if found.name == str(name) and (bundled := BUNDLED / f"{name}.safetensors").is_file():
        return bundled
    if is_address(str(name)):
        return fetch(str(name))
    raise MidwayError(f"{name}: no such file or folder; check the path")


def checkpoints_of(run_folder: Path) -> list[Path]:
    """Return the checkpoints of a run, ``checkpoints/step_N.ckpt``, the newest last."""
    found = (run_folder / "checkpoints").glob("step_*.ckpt")
    # isdecimal alone accepts digits of other scripts.
    numbered = [path for path in found if path.stem[5:].isascii() and path.stem[5:].isdecimal()]
    return sorted(numbered, key=step_of)


def step_of(path: Path) -> int:
    """Return the number of completed steps in the name of a checkpoint."""
    return int(path.stem.removeprefix("step_"))


def _newest_checkpoint(folder: Path) -> Path:
    # Other people's checkpoints have no step in their names.
    checkpoints = checkpoints_of(folder) or sorted(folder.glob("checkpoints/*.ckpt"))
    checkpoints = checkpoints or [folder / name for name in EXPORTS if (folder / name).is_file()]
    if not checkpoints and is_sharded(folder):
        raise MidwayError(
            f"{folder}: is a checkpoint in several files; save it as one .safetensors file and "
            "give that"
        )
    if not checkpoints:
        raise MidwayError(f"{folder}: no checkpoints/*.ckpt in it; give a run folder or a file")
    return checkpoints[-1]


def _read_safetensors(file: Path) -> WeightsFile:
    header, tensors = open_safetensors(file)
    sizes, encoders = (
        parse_header(file, header[key]) if key in header else None for key in (NETWORK, ENCODERS)
    )
    # Files of version 0.1 have our key but describe no encoders.
    is_plain = encoders is None and not any(key.startswith(NETWORK) for key in header)
    return WeightsFile(
        path=file,
        layout="plain" if is_plain else "own",
        tensors=tensors,
        sizes=sizes,
        encoders=_specs(encoders, where=str(file)),
        header=header,
    )


def parse_header(file: Path, text: str) -> dict[str, Any]:
    """Return a configuration from the header of a `.safetensors` file.

    Raises:
        MidwayError: It is not a JSON object.

    """
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise MidwayError(
            f"{file}: the configuration in its header is not JSON ({error}); export it again"
        ) from None
    if not isinstance(values, dict):
        raise MidwayError(
            f"{file}: the configuration in its header is not a JSON object; export it again"
        )
    return values


def _is_run(file: Path, contents: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint was written by a run, rather than by a third party."""
    if not isinstance(contents.get("model"), Mapping):
        return False
    if ENCODERS in contents or "skipped_steps" in contents:
        return True
    return file.suffix == ".ckpt" and (file.parent.parent / "config.json").is_file()


def _read_run(file: Path, contents: Mapping[str, Any]) -> WeightsFile:
    """Read a checkpoint in a run folder; its config.json contains the sizes of a Midway network."""
    encoders = _specs(contents.get(ENCODERS), where=str(file))
    config = file.parent.parent / "config.json"
    # Described encoders need no configuration file.
    method = read_json(config).get("method") if config.is_file() or not encoders else None
    sizes = None
    if isinstance(method, Mapping) and method.get("name", "midway") == "midway":
        sizes = method.get("network")
    return WeightsFile(
        path=file,
        layout="run",
        tensors={str(name): tensor for name, tensor in contents["model"].items()},
        sizes=sizes if isinstance(sizes, Mapping) else None,
        encoders=encoders,
        pair_encoder=_pair_spec(contents.get(PAIR_ENCODER), where=str(file)),
    )


def _pair_spec(values: object, *, where: str) -> PairEncoderSpec | None:
    where = f"{where}: {PAIR_ENCODER}"
    if values is None:
        return None
    if not isinstance(values, Mapping):
        raise MidwayError(f"{where} is a {type(values).__name__}, not a dict")
    return from_json(PairEncoderSpec, values, where=where)


def _specs(values: object, *, where: str) -> dict[str, EncoderSpec]:
    if values is None:
        return {}
    where = f"{where}: {ENCODERS}"
    if not isinstance(values, Mapping):
        raise MidwayError(f"{where} is a {type(values).__name__}, not a dict")
    return {
        str(name): from_json(EncoderSpec, spec, where=f"{where}: {name}")
        for name, spec in values.items()
    }
