"""What any evaluation leaves behind: `results.json`, and which protocol its numbers are of."""

import hashlib
import json
from pathlib import Path
from typing import Any

from midway.atomic import write_atomically


def protocol_version(code: int, settings: Any) -> str:
    """Short hash of what decides the numbers of a protocol.

    Args:
        code: Raised when the code makes something else of the same settings.
        settings: Plain values of JSON, without what says where it runs and on which network.
    """
    text = json.dumps([code, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def write_results(folder: Path, results: dict[str, Any]) -> None:
    """Write ``results.json``."""
    text = json.dumps(results, indent=2) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    write_atomically(folder / "results.json", lambda file: file.write(text.encode()))
