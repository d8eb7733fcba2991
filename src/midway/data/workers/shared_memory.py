"""Memory shared by processes, and pickles with their arrays in this memory."""

import mmap
import os
import pickle
import tempfile
from dataclasses import dataclass
from multiprocessing.reduction import DupFd
from typing import Any

import numpy as np

_ALIGNMENT = 64


class SharedMemory:
    """Anonymous memory shared by a process and its children, freed with the last of them.

    Unlike a named block it does not need space in ``/dev/shm``, and does not outlive killed
    processes.

    Args:
        size: Size in bytes; untouched pages use no memory.
    """

    _descriptor = -1

    def __init__(self, size: int) -> None:
        if hasattr(os, "memfd_create"):
            descriptor = os.memfd_create("midway")
        else:
            with tempfile.TemporaryFile() as file:
                descriptor = os.dup(file.fileno())
        self._descriptor = descriptor  # closed by __del__ if there is no memory
        os.ftruncate(descriptor, size)
        self._attach(descriptor, size)

    def __getstate__(self) -> tuple[Any, int]:
        return DupFd(self._descriptor), len(self.bytes)

    def __setstate__(self, state: tuple[Any, int]) -> None:
        self._attach(state[0].detach(), state[1])

    def __del__(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)

    def _attach(self, descriptor: int, size: int) -> None:
        self._descriptor = descriptor
        self.bytes = memoryview(mmap.mmap(descriptor, size))


@dataclass(frozen=True)
class Packed:
    """Pickle of an object; its arrays are in shared memory, or attached if they do not fit."""

    pickled: bytes
    """Pickle without the bytes of arrays."""
    places: list[tuple[int, int]]
    """Start and end in the shared memory of each array that fits."""
    sent: list[bytearray]
    """Bytes of the remaining arrays."""

    @classmethod
    def into(cls, memory: SharedMemory, value: object) -> "Packed":
        """Pickle `value`, and copy its arrays into the memory as far as they fit."""
        arrays: list[pickle.PickleBuffer] = []
        pickled = pickle.dumps(value, protocol=5, buffer_callback=arrays.append)
        places, end = [], 0
        for number, array in enumerate(arrays):
            data = array.raw()
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            if start + data.nbytes > len(memory.bytes):
                return cls(pickled, places, [bytearray(rest.raw()) for rest in arrays[number:]])
            end = start + data.nbytes
            memory.bytes[start:end] = data
            places.append((start, end))
        return cls(pickled, places, [])

    def load(self, memory: SharedMemory) -> Any:
        """Return the object with copies of its arrays, so that the memory can be reused."""
        # NumPy releases the GIL while it copies.
        buffers = [
            np.frombuffer(memory.bytes[start:end], np.uint8).copy() for start, end in self.places
        ]
        return pickle.loads(self.pickled, buffers=[*buffers, *self.sent])
