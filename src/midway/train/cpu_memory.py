"""Settings of glibc's allocator for processes that train on a CPU."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
"""Parameters of mallopt, from glibc's malloc.h."""
_NEVER = -1
_MIB = 2**20


def keep_freed_memory() -> None:
    """Make glibc keep freed memory for the next step, instead of returning it to the system.

    Each step allocates the same blocks again, and the page faults of the first access cost more
    than many operations on them (docs/PERFORMANCE.md). Other allocators are unaffected.
    """
    # Without mmap all blocks come from the heap, which is then never trimmed.
    _set({_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: _NEVER})


def give_freed_memory_back() -> None:
    """Restore glibc's default behaviour (for baseline timings)."""
    # By default the thresholds grow with the largest freed block; these are their final values.
    _set({_M_MMAP_MAX: 65536, _M_MMAP_THRESHOLD: 32 * _MIB, _M_TRIM_THRESHOLD: 64 * _MIB})


def _set(values: dict[int, int]) -> None:
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for parameter, value in values.items():
            mallopt(parameter, value)
