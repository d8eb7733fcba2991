"""What is freed stays with the process, or goes back, as is asked for."""

import ctypes
import subprocess
import sys
from pathlib import Path

import pytest

_STATM = Path("/proc/self/statm")

_SIZE = 2**28

_FREE_ONE_BLOCK = f"""
import resource
from midway.train.launch import give_freed_memory_back, keep_freed_memory

def resident_bytes():
    with open("{_STATM}") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()

{{calls}}
block = bytearray(b"1") * {_SIZE}
held = resident_bytes()
del block
print(held - resident_bytes())
"""


@pytest.mark.skipif(
    not (hasattr(ctypes.CDLL(None), "mallopt") and _STATM.exists()), reason="needs glibc on Linux"
)
@pytest.mark.parametrize(
    ("calls", "given_back"),
    [("keep_freed_memory()", 0), ("keep_freed_memory(); give_freed_memory_back()", _SIZE)],
    ids=["kept", "given back after all"],
)
def test_freed_memory_goes_back_or_is_kept_for_the_next_step(calls: str, given_back: int) -> None:
    # In a process of its own: what earlier tests have left decides where a block lies.
    command = [sys.executable, "-c", _FREE_ONE_BLOCK.format(calls=calls)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(done.stdout) == pytest.approx(given_back, abs=0.1 * _SIZE)
