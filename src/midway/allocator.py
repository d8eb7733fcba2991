"""Settings of glibc's allocator: freed memory that a process keeps. Other allocators ignore them.

The page faults of the first access to a new block cost more than many operations on it
(docs/PERFORMANCE.md).
"""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""Parameters of mallopt, from glibc's malloc.h."""
_NEVER = -1
_MIB = 2**20


def keep_freed_memory() -> None:
    """Keep all freed memory, because each training step allocates the same blocks again."""
    # Without mmap all blocks come from the heap, which is then never trimmed.
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER})


def keep_some_freed_memory() -> None:
    """Keep up to 64 MiB of freed memory, such as the frames of a task that reads video.

    By default the limit is twice the largest freed block, and grows up to this value.
    """
    _set({_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 * _MIB, _M_TRIM_THRESHOLD: 64 * _MIB})


def return_freed_memory() -> None:
    """Return all free memory to the system at once."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def _set(values: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in values.items():
            mallopt(parameter, value)
