"""Freed memory is kept or returned, depending on the setting."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

_STATM = Path("/proc/self/statm")

_FREE = f"""
import resource
from midway.allocator import keep_freed_memory, keep_some_freed_memory, return_freed_memory

def resident_bytes():
    with open("{_STATM}") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()

{{before}}
blocks = [bytearray(b"1") * {{size}} for _ in range({{count}})]
held = resident_bytes()
del blocks
{{after}}
print(held - resident_bytes())
"""

_FRAMES = {"size": 3 * 2**20, "count": 10}
_ONE_BLOCK = {"size": 2**28, "count": 1}


@pytest.mark.skipif(
    not (hasattr(ctypes.CDLL(None), "mallopt") and _STATM.exists()), reason="needs glibc on Linux"
)
@pytest.mark.parametrize(
    ("before", "blocks", "after", "share"),
    [
        ("keep_freed_memory()", _ONE_BLOCK, "", 0),
        ("keep_freed_memory(); keep_some_freed_memory()", _ONE_BLOCK, "", 1),
        ("keep_some_freed_memory()", _FRAMES, "", 0),
        ("keep_some_freed_memory()", _FRAMES, "return_freed_memory()", 1),
    ],
    ids=["all kept", "given back after all", "frames kept", "frames returned"],
)
def test_freed_memory_goes_back_or_is_kept(before, blocks, after, share):
    # In a process of its own: what earlier tests have left decides where a block lies.
    command = [sys.executable, "-c", _FREE.format(before=before, after=after, **blocks)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size = blocks["size"] * blocks["count"]
    assert int(done.stdout) == pytest.approx(share * size, abs=0.1 * size)
