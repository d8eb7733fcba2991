"""Cores of the CPU that this process may use, and those of them that are idle."""

import os
import time
from pathlib import Path

SAMPLE_SECONDS = 0.2
"""Time over which idle cores are counted."""


def usable_cores() -> int:
    """Return the number of cores that CPU affinity and the cgroup's quota allow, at least 1."""
    return max(1, int(min(len(_allowed()), _quota())))


def free_cores() -> int:
    """Return the number of usable cores without the load of other processes, at least 1.

    The load is measured for `SAMPLE_SECONDS`, in which this process sleeps.
    """
    usable, allowed = usable_cores(), _allowed()
    before = _idle_seconds(allowed)
    start = time.monotonic()
    time.sleep(SAMPLE_SECONDS if before is not None else 0)
    after = _idle_seconds(allowed)
    if before is None or after is None:
        return usable
    # A core counts as free if it idles for more than half of the time.
    idle = round((after - before) / (time.monotonic() - start))
    return max(1, min(usable, idle))


def _allowed() -> set[int]:
    # Under a scheduler, a process may use fewer cores than the machine has.
    if hasattr(os, "sched_getaffinity"):
        return os.sched_getaffinity(0)
    return {*range(os.cpu_count() or 1)}


def _quota(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> float:
    """Return the smallest quota of the control groups of this process in cores, else infinity."""
    quotas = [float("inf")]
    for line in _text(own).splitlines():
        _, controllers, path = line.split(":", 2)
        group = root / path.strip("/") if not controllers else root / "cpu" / path.strip("/")
        if controllers and "cpu" not in controllers.split(","):
            continue
        # A parent's quota also limits its children; outside `root` there is none.
        for folder in (group, *group.parents):
            if folder.is_relative_to(root):
                quotas.append(_quota_of(folder))
    return min(quotas)


def _quota_of(folder: Path) -> float:
    """Return the quota of one control group, of version 2 or 1."""
    words = _text(folder / "cpu.max").split() or [
        _text(folder / f"cpu.cfs_{name}_us").strip() for name in ("quota", "period")
    ]
    try:
        quota, period = map(float, words)  # "max" and "" are no numbers, and -1 is no limit
    except ValueError:
        return float("inf")
    return quota / period if quota > 0 and period > 0 else float("inf")


def _idle_seconds(cores: set[int], stat: Path = Path("/proc/stat")) -> float | None:
    """Return the time that the cores have idled since the start of the system; None if unknown."""
    rows = (line.split() for line in _text(stat).splitlines() if line.startswith("cpu"))
    idle = {row[0]: int(row[4]) + int(row[5]) for row in rows if len(row) > 5}
    names = {f"cpu{core}" for core in cores}
    if not names <= idle.keys():
        return None
    return sum(idle[name] for name in names) / os.sysconf("SC_CLK_TCK")


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
