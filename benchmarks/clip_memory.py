"""Measure the resident memory of a process that reads clips of several frames, in tenths.

    python benchmarks/clip_memory.py videos --clips 2000 --frames 16

Prints one JSON object: frames per second, and mean memory in MiB of each tenth of the clips. Linux
only.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from statistics import fmean

from midway.allocator import keep_some_freed_memory, return_freed_memory
from midway.data.clips.find import find_clips
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.views.boxes import Box
from midway.data.views.spec import ClipSpec, Region, View
from midway.data.workers.pool import TASKS_PER_TRIM, Reading

PARTS = 10


def main() -> None:
    """Read the clips, and print the numbers."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root")
    parser.add_argument("--clips", type=int, default=2000)
    parser.add_argument("--frames", type=int, default=16)
    parser.add_argument("--gap-seconds", type=float, default=4 / 30)
    options = parser.parse_args()
    gap = (options.gap_seconds, options.gap_seconds)
    spec = ClipSpec(
        num_frames=options.frames,
        regions={"crop": Region(box=Box(area=(0.2, 1.0)), short_side=224)},
        views={"clip": View(size=(224, 224), region="crop", aligned=True)},
    )
    found = find_clips(options.root, fps=30.0, gap_seconds=gap, num_frames=options.frames)
    dataset = ClipDataset(found, ClipsConfig(root=options.root, gap_seconds=gap), spec, seed=0)
    reading = Reading({}, lambda clip: None)
    keep_some_freed_memory()  # as a worker does
    mebibytes, start = [], time.perf_counter()
    for number in range(options.clips):
        epoch, index = divmod(number, len(dataset))
        dataset.read(epoch, index, reading)
        mebibytes.append(resident())
        if (number + 1) % TASKS_PER_TRIM == 0:
            return_freed_memory()
    seconds = time.perf_counter() - start
    share = options.clips / PARTS
    parts = [mebibytes[int(n * share) : int((n + 1) * share)] for n in range(PARTS)]
    row = {
        "clips": options.clips,
        "frames_per_second": round(options.clips * options.frames / seconds, 1),
        "mean_mebibytes": [round(fmean(part)) for part in parts],
    }
    sys.stdout.write(json.dumps(row) + "\n")


def resident() -> float:
    """Return the resident memory of this process in MiB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


if __name__ == "__main__":
    main()
