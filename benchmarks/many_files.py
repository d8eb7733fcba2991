"""Measure start-up time and memory of a training run on a tree as large as BDD100K, with an index.

The tree contains 70,000 hard links to a few tiny videos in `videos/train`, and the network is
minimal. Measured are the time to build the index, the time from the command to the first optimiser
step, and the resident memory of the training process and of its workers over the steps.

    python benchmarks/many_files.py --files 70000 --steps 10000
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos

TINY = shlex.split("""
--method.network.encoder.image-size 16 16 --method.network.encoder.patch-size 8
--method.network.encoder.width 24 --method.network.encoder.depth 2
--method.network.encoder.heads 1 --method.network.dynamics.levels 1
--method.network.dynamics.midway-width 12 --method.network.dynamics.midway-depth 1
--method.network.dynamics.forward-depth 1 --method.network.head.hidden 16
--method.network.head.bottleneck 8 --method.network.head.num-prototypes 16
--method.views.motion-size 16 16 --method.views.global-size 16 16
--method.views.local-size 8 8 --method.views.num-local 1
--data.starts random --data.draws-per-clip 5 --data.batch-size 5 --data.num-workers 1
--run.log-every 1 --run.checkpoint-every 1000000
""")


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=70_000)
    parser.add_argument("--steps", type=int, default=10_000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder, "videos/train")
        make_tree(root, options.files)
        start = time.perf_counter()
        midway("prepare", str(root), "--index-only", "--jobs", "2")
        index_seconds = time.perf_counter() - start
        found = {"index_seconds": index_seconds, **train(root, options.steps)}
        sys.stdout.write(json.dumps(found) + "\n")


def make_tree(root: Path, num_files: int) -> None:
    """Make hard links to ten videos of two seconds."""
    originals = root.parent / "originals"
    world = WorldConfig(height=64, width=64, num_frames=60)
    write_videos(originals, world, seeds=range(10))
    videos = sorted(originals.glob("*.mp4"))
    root.mkdir(parents=True)
    for number in range(num_files):
        os.link(videos[number % len(videos)], root / f"{number:08x}.mp4")


def train(root: Path, steps: int) -> dict[str, object]:
    """Train, and sample the memory of the processes."""
    run = root.parent / "run"
    command = ["train", "camvid.midway_tiny", "--data.root", str(root), "--run.folder", str(run)]
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "midway.cli", *command, "--run.steps", str(steps), *TINY],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    metrics = run / "metrics.jsonl"
    first_step_seconds, memory = 0.0, []
    while process.poll() is None:
        time.sleep(0.1 if not first_step_seconds else 5)
        done = metrics.read_text().count("\n") if metrics.exists() else 0
        if done and not first_step_seconds:
            first_step_seconds = time.perf_counter() - start
        if done and process.poll() is None:
            memory.append({"step": done, "mib": resident_mib(process.pid)})
    if process.returncode:
        raise SystemExit(process.returncode)
    return {
        "first_step_seconds": first_step_seconds,
        "steps_per_second": steps / (time.perf_counter() - start - first_step_seconds),
        "memory": memory[:: max(1, len(memory) // 20)],
    }


def resident_mib(process: int) -> list[float]:
    """Return the resident memory of a process and of its children, in MiB."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    pages = [
        int(Path(f"/proc/{each}/statm").read_text().split()[1]) for each in (process, *children)
    ]
    return [round(count * os.sysconf("SC_PAGE_SIZE") / 2**20, 1) for count in pages]


def midway(*words: str) -> None:
    """Run a command of the package."""
    subprocess.run([sys.executable, "-m", "midway.cli", *words], check=True)


if __name__ == "__main__":
    main()
