"""Enough of h5py for `.flo5` files where it is not installed: datasets kept in one .npz file."""

import numpy as np


class File:
    def __init__(self, file, mode: str) -> None:
        self._file, self._mode, self._arrays = file, mode, {}
        if mode == "r":
            try:
                self._arrays = dict(np.load(file))
            except Exception as error:
                raise OSError("file signature not found") from error

    def __enter__(self) -> "File":
        return self

    def __exit__(self, *error: object) -> None:
        if self._mode == "w":
            np.savez(self._file, **self._arrays)

    def __getitem__(self, name: str):
        return self._arrays[name]

    def create_dataset(self, name: str, *, data, compression: str) -> None:
        assert compression == "gzip"
        self._arrays[name] = data
