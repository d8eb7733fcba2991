"""Memory of a process that trains on a CPU."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""Of glibc's malloc.h."""
_NEVER = -1
_MIB = 2**20


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next step, instead of giving it back to the system.

    Each step wants the same memory again, and to touch a page for the first time costs more than
    many operations on it (docs/PERFORMANCE.md). Other systems' allocators are left as they are.
    """
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER})


def give_freed_memory_back() -> None:
    """Let glibc give memory back as it does by itself, for what is to be compared with.

    By itself its thresholds rise with the largest block that is freed. These are where they end.
    """
    _set({_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 * _MIB, _M_TRIM_THRESHOLD: 64 * _MIB})


def _set(values: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in values.items():
            mallopt(parameter, value)
