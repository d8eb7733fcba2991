"""Memory of a process that trains on a CPU."""

import ctypes

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
"""Of glibc's malloc.h."""
_NEVER = -1


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, for the next step, instead of giving it back to the system.

    Each step wants the same memory again, and to touch a page for the first time costs more than
    many operations on it (docs/PERFORMANCE.md). Other systems' allocators are left as they are.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_MMAP_MAX, 0)
        mallopt(_M_TRIM_THRESHOLD, _NEVER)
