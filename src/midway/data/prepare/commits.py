"""Creation of a frame store, and atomic commits by the one process that writes to it."""

import time
from collections.abc import Iterable
from dataclasses import asdict
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from midway.data.clips.store import (
    STORE_SUFFIX,
    LanceError,
    StoreConfig,
    is_store,
    lance_errors,
    open_store,
    require_store_packages,
    store_schema,
)
from midway.data.files import is_url
from midway.errors import MidwayError

if TYPE_CHECKING:
    from lance import FragmentMetadata

# Folders that Lance creates before the first version of a dataset is complete.
_LANCE_FOLDERS = frozenset(["_versions", "_transactions", "data"])


class StoreCommits:
    """Writer of a store: creates it, or resumes one with the same settings, and commits files.

    Args:
        location: Path or URL, ending in ``.lance``.
        config: Settings of the store.

    Raises:
        MidwayError: The location is not a store, has other settings, or cannot be created.
    """

    def __init__(self, location: str, config: StoreConfig) -> None:
        self.location = location
        self._pending: list[FragmentMetadata] = []
        self._committed_at = time.monotonic()
        self._make(config)
        self._dataset, begun = open_store(location)
        for name, value in asdict(begun).items():
            if value != getattr(config, name):
                option = f"--{name.replace('_', '-')}"
                raise MidwayError(
                    f"{location}: was begun with {option} {value:g}, not "
                    f"{getattr(config, name):g}; give {option} {value:g} or another destination"
                )

    @property
    def frames(self) -> int:
        """Number of committed rows."""
        return self._dataset.count_rows()

    @property
    def num_bytes(self) -> int:
        """Size of the committed files in bytes."""
        return sum(
            file.file_size_bytes or 0
            for fragment in self._dataset.get_fragments()
            for file in fragment.metadata.files
        )

    @property
    def pending_seconds(self) -> float:
        """Time since the last commit, or since the creation of this object."""
        return time.monotonic() - self._committed_at

    def add(self, fragments: Iterable["FragmentMetadata"]) -> None:
        """Queue written files for the next commit."""
        self._pending += fragments

    def commit(self) -> None:
        """Make all queued files part of the store, in the order in which they were added.

        Raises:
            MidwayError: Another process has written to the store, or writing fails.
        """
        import lance

        # Cleared first, so that an interrupted commit cannot be repeated.
        fragments, self._pending = self._pending, []
        self._committed_at = time.monotonic()
        if not fragments:
            return
        try:
            with lance_errors():
                if self._dataset.latest_version != self._dataset.version:
                    raise MidwayError(
                        f"{self.location}: another process writes to it; stop that process and run "
                        "the same command to resume"
                    )
                self._dataset = lance.LanceDataset.commit(
                    self._dataset,
                    lance.LanceOperation.Append(fragments),
                    read_version=self._dataset.version,
                )
        except LanceError as error:
            raise MidwayError(
                f"{self.location}: cannot be written ({error}); fix this and run the same "
                "command to resume"
            ) from error

    def clean(self) -> None:
        """Remove older versions and the files of killed runs; no other process may write.

        Raises:
            MidwayError: A file cannot be removed.
        """
        try:
            with lance_errors():
                self._dataset.cleanup_old_versions(older_than=timedelta(0), delete_unverified=True)
        except LanceError as error:
            raise MidwayError(
                f"{self.location}: is complete, but its obsolete files cannot be removed "
                f"({error}); run the same command again"
            ) from error

    def _make(self, config: StoreConfig) -> None:
        require_store_packages(self.location)
        import lance

        path = None if is_url(self.location) else Path(self.location)
        if not is_store(self.location):
            raise MidwayError(
                f"{self.location}: is not a name for a frame store; give one that ends in "
                f"{STORE_SUFFIX}"
            )
        if path and path.exists() and not path.is_dir():
            raise MidwayError(f"{path}: is a file; give another destination or remove it")
        if path and path.is_dir() and {each.name for each in path.iterdir()} - _LANCE_FOLDERS:
            return  # not an incomplete store; opening it raises the error, if any
        try:
            with lance_errors():
                lance.write_dataset(
                    store_schema(config).empty_table(), self.location, mode="create"
                )
        except LanceError as error:
            if "already exists" not in str(error):
                raise MidwayError(
                    f"{self.location}: cannot be created ({error}); give another destination"
                ) from error
