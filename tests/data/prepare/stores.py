"""Looks into stores on disk."""

from pathlib import Path

import lance


def has_no_leftovers(destination: Path) -> bool:
    """Whether the store's folder holds the files of its one version and nothing else."""
    used = {
        file.path
        for fragment in lance.dataset(str(destination)).get_fragments()
        for file in fragment.metadata.files
    }
    return {path.name for path in (destination / "data").iterdir()} == used and len(
        list((destination / "_versions").glob("*.manifest"))
    ) == 1
