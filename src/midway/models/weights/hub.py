"""Weights by name or address: published networks, files on the Hugging Face hub, web addresses."""

import hashlib
import logging
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from midway.errors import MidwayError
from midway.models.weights.layouts.beside import CONFIG, PREPROCESSOR, WEIGHTS
from midway.models.weights.layouts.published import PUBLISHED

HUB_FILE = "model.safetensors"
"""File that an address without a file name refers to."""
SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")
TIMEOUT_SECONDS = 5
_HUB_ADDRESS = re.compile(r"(?:hf://)?(?P<repo>[\w.-]+/[\w.-]+)(?:/(?P<file>[\w./-]+))?")
_log = logging.getLogger(__name__)


def is_address(name: str) -> bool:
    """Return whether a name that is no local path has the form of an address."""
    if name in PUBLISHED or name.startswith(("http://", "https://")):
        return True
    address = _HUB_ADDRESS.fullmatch(name)
    if address is None or address["repo"].endswith(SUFFIXES):
        return False
    if address["file"] and not address["file"].endswith(SUFFIXES):
        return False
    # "runs/mine" is a hub id unless there is a folder "runs", in which the run is missing.
    return name.startswith("hf://") or not Path(name.partition("/")[0]).is_dir()


def fetch(name: str) -> Path:
    """Return the local copy of a file, downloaded on the first use with a progress bar.

    The hub's files lie in its own cache, other addresses in ``~/.cache/midway``
    (``$XDG_CACHE_HOME/midway``). An interrupted download continues where it stopped. Without
    a connection, or with ``HF_HUB_OFFLINE=1``, the cached copy is taken.

    Args:
        name: Name of a published network, ``owner/name[/file]`` on the hub, with or without
            ``hf://``, or a web address.

    Raises:
        MidwayError: There is no such file, or it cannot be downloaded.

    """
    if name.startswith(("http://", "https://")):
        return _from_web(name)
    if name in PUBLISHED:
        published = PUBLISHED[name]
        if published.is_on_the_web:
            return _from_web(f"{published.repo}/{published.file}", terms=published.terms)
        return _from_hub(name, published.repo, published.file, terms=published.terms)
    address = _HUB_ADDRESS.fullmatch(name)
    if address is None:
        raise MidwayError(f"{name}: is no address on the hub; give owner/name or owner/name/file")
    return _from_hub(name, address["repo"], address["file"] or HUB_FILE)


def _from_hub(name: str, repo: str, file: str, *, terms: str = "") -> Path:
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    if terms and not isinstance(try_to_load_from_cache(repo, file), str):
        _log.warning("%s: %s", name, terms)
    try:
        with _quiet():
            found = Path(hf_hub_download(repo, file, etag_timeout=TIMEOUT_SECONDS))
            _fetch_beside(repo, file)
            return found
    except (errors.GatedRepoError, errors.RepositoryNotFoundError):
        reason = f"the hub has no public {repo}; check it, or log in with `hf auth login`"
    except errors.RemoteEntryNotFoundError:
        reason = f"the hub's {repo} has no file {file}; give owner/name/file"
    except errors.HFValidationError:
        reason = "is no address on the hub; give owner/name or owner/name/file"
    except (errors.LocalEntryNotFoundError, errors.HfHubHTTPError, OSError):
        reason = (
            f"no such file or folder here, and the hub cannot be reached for {file}; check the "
            "path or the connection"
        )
    raise MidwayError(f"{name}: {reason}") from None


def _fetch_beside(repo: str, file: str) -> None:
    """Try to fetch the configuration files beside the weights, unless they are cached."""
    from huggingface_hub import errors, hf_hub_download, try_to_load_from_cache

    # The cache also remembers that a file is not there.
    wanted = [
        name
        for name in (CONFIG, PREPROCESSOR)
        if file in WEIGHTS and try_to_load_from_cache(repo, name) is None
    ]
    for name in wanted:
        with suppress(errors.EntryNotFoundError, errors.HfHubHTTPError, OSError):
            hf_hub_download(repo, name, etag_timeout=TIMEOUT_SECONDS)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the log of the library, which reports each retry; its progress bar stays."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def cached_at(address: str) -> Path:
    """Return the path of the cached copy of a URL."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "midway"
    last = unquote(Path(urlsplit(address).path).name) or "weights"
    # The address is part of the name: two sites may call their files alike.
    return cache / hashlib.sha256(address.encode()).hexdigest()[:12] / last


def _from_web(address: str, *, terms: str = "") -> Path:
    from huggingface_hub.file_download import get_hf_file_metadata, http_get

    target = cached_at(address)
    if target.is_file():
        return target
    if terms:
        _log.warning("%s: %s", address, terms)
    part = target.with_name(f"{target.name}.part")
    part.parent.mkdir(parents=True, exist_ok=True)
    try:
        with part.open("ab") as file, _quiet():
            http_get(
                address,
                file,
                resume_size=file.tell(),
                expected_size=get_hf_file_metadata(address).size,
                displayed_filename=target.name,
            )
    except Exception as error:
        # The library lets the errors of its HTTP client through, whatever that is.
        reason = " ".join(str(error).split()) or type(error).__name__
        raise MidwayError(
            f"{address}: cannot be downloaded ({reason}); check the address, or fetch the file "
            "by other means and give its path"
        ) from None
    part.replace(target)
    return target
