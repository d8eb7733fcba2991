"""Find and read the file of a network: its tensors, and what tells its sizes."""

import json
import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError
from safetensors import SafetensorError, safe_open
from torch import Tensor

from midway.config import from_json, read_json
from midway.errors import MidwayError
from midway.models.midway import NetworkConfig
from midway.models.release import PARTS, Told, flatten_release, release_sizes
from midway.models.safe_pickle import named_tensors, read_checkpoint

BUNDLED = Path(__file__).parent.parent / "networks"
"""Networks that come with the package, as ``NAME.safetensors``."""
HUB_FILE = "model.safetensors"
HUB_TIMEOUT_SECONDS = 3
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")


@dataclass(frozen=True, kw_only=True)
class NetworkFile:
    """A network as it lies in a file."""

    path: Path
    tensors: Mapping[str, Tensor]
    """By their names in the file."""
    sizes: Mapping[str, Any] | None
    """Fields of `NetworkConfig` in a file of our own; None in the release layout."""
    args: object = None
    """Arguments of a file in the release layout."""

    @property
    def is_release(self) -> bool:
        """Whether the file has the release layout."""
        return self.sizes is None

    def config(self, told: Told) -> NetworkConfig:
        """Configuration of the network.

        Args:
            told: What a file in the release layout may not tell; one of our own tells all.

        Raises:
            UnknownHeadsError: The file does not tell all numbers of heads, nor does `told`.
            MidwayError: Sizes that no network has.

        """
        where, sizes = str(self.path), self.sizes
        if sizes is None:
            sizes = release_sizes(self.tensors, self.args, told, where=where)
        try:
            return from_json(NetworkConfig, sizes, where="its sizes")
        except MidwayError as error:
            raise MidwayError(f"{where}: {' '.join(str(error).split())}") from None


def read_network_file(path: str | Path) -> NetworkFile:
    """Read a release `.pth`, a run folder, a `.ckpt`, a `.safetensors` file or a hub id.

    The name of a network that comes with the package ("synthetic-tiny") does as well, unless a
    file or folder here is called so.

    Raises:
        MidwayError: No such thing, or not readable.

    """
    file = _find_file(path)
    if file.suffix == ".safetensors":
        return _read_safetensors(file)
    contents = read_checkpoint(file)
    if any(part in contents for part in PARTS):
        tensors = flatten_release(contents, where=str(file))
        return NetworkFile(path=file, tensors=tensors, sizes=None, args=contents.get("args"))
    return _read_own_checkpoint(file, contents)


def _find_file(path: str | Path) -> Path:
    found = Path(path)
    try:
        if found.is_file():
            return found
        if found.is_dir():
            return _newest_checkpoint(found)
    except OSError as error:
        raise MidwayError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    if found.name == str(path) and (bundled := BUNDLED / f"{path}.safetensors").is_file():
        return bundled
    if found.suffix in SUFFIXES or not re.fullmatch(r"\w[\w.-]*/\w[\w.-]*", str(path)):
        raise MidwayError(f"{path}: no such file or folder; check the path")
    try:
        with _silent("huggingface_hub"):
            return Path(hf_hub_download(str(path), HUB_FILE, etag_timeout=HUB_TIMEOUT_SECONDS))
    except (HfHubHTTPError, HFValidationError, OSError):
        raise MidwayError(
            f"{path}: no such folder here, and {HUB_FILE} cannot be had from the hub; check both"
        ) from None


@contextmanager
def _silent(name: str) -> Iterator[None]:
    """Keep a library's log messages back: what it retries is no news to the user."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _newest_checkpoint(folder: Path) -> Path:
    checkpoints = sorted(folder.glob("checkpoints/*.ckpt")) or sorted(folder.glob(HUB_FILE))
    if not checkpoints:
        raise MidwayError(f"{folder}: no checkpoints/*.ckpt in it; give a run folder or a file")
    return checkpoints[-1]


def _read_safetensors(file: Path) -> NetworkFile:
    try:
        with safe_open(file, framework="pt") as opened:
            header = (opened.metadata() or {}).get("midway")
            tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise MidwayError(f"{file}: no readable safetensors file ({error})") from None
    if header is None:
        raise MidwayError(f"{file}: no Midway configuration in its header; not written by midway")
    try:
        sizes = json.loads(header)
    except (ValueError, RecursionError) as error:
        raise MidwayError(f"{file}: the configuration in its header is no JSON ({error})") from None
    if not isinstance(sizes, dict):
        raise MidwayError(f"{file}: the configuration in its header is no JSON object")
    return NetworkFile(path=file, tensors=named_tensors(tensors, where=str(file)), sizes=sizes)


def _read_own_checkpoint(file: Path, contents: Mapping[str, Any]) -> NetworkFile:
    """Network of a checkpoint in a run folder; its sizes stand in the run's config.json."""
    if "model" not in contents:
        keys = ", ".join(map(str, contents))
        raise MidwayError(f"{file}: holds no Midway network; keys are {keys}")
    prefix = "network."
    model = named_tensors(contents["model"], where=f"{file}: model")
    others = [name for name in model if not name.startswith(prefix)]
    if others or not model:
        raise MidwayError(f"{file}: holds no Midway network alone, but {', '.join(others)}")
    config_file = file.parent.parent / "config.json"
    method = read_json(config_file).get("method")
    sizes = method.get("network") if isinstance(method, dict) else None
    if not isinstance(sizes, dict):
        raise MidwayError(f"{config_file}: no method.network in it; is it a run's?")
    tensors = {name.removeprefix(prefix): tensor for name, tensor in model.items()}
    return NetworkFile(path=file, tensors=tensors, sizes=sizes)
