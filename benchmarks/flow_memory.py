"""Measure the resident memory of `midway flow` along a video, in tenths of its running time.

    python benchmarks/flow_memory.py video.mp4 --times 3

`--times` repeats the video, to distinguish growth with length from fluctuation. The first tenth
includes the start of Python. Flow is estimated from pixels, in one process. Linux only.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import fmean

import av

SAMPLE_SECONDS = 0.25
PARTS = 10


def main() -> None:
    """Measure, and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", type=Path)
    parser.add_argument("--times", type=int, default=1, help="repetitions of the video")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shown = Path(folder, "shown.mp4")
        repeat(options.video, options.times, shown)
        command = [
            sys.executable,
            "-m",
            "midway.cli",
            "flow",
            str(shown),
            "-o",
            f"{folder}/out.mp4",
        ]
        start = time.perf_counter()
        mebibytes = resident(command)
        seconds = time.perf_counter() - start
    if len(mebibytes) < PARTS:
        raise SystemExit(f"{options.video}: took only {seconds:.1f} s; increase --times")
    share = len(mebibytes) / PARTS
    parts = [mebibytes[int(n * share) : int((n + 1) * share)] for n in range(PARTS)]
    row = {
        "video": options.video.name,
        "times": options.times,
        "seconds": round(seconds),
        "mean_mebibytes": [round(fmean(part)) for part in parts],
        "highest_mebibytes": [round(max(part)) for part in parts],
    }
    sys.stdout.write(json.dumps(row) + "\n")


def repeat(video: Path, times: int, out: Path) -> None:
    """Concatenate a video with itself without re-encoding."""
    with av.open(str(out), "w") as sink:
        copy = None
        begin = 0
        for _ in range(times):
            with av.open(str(video)) as source:
                stream = source.streams.video[0]
                copy = copy or sink.add_stream_from_template(stream)
                end = begin
                for packet in source.demux(stream):
                    if packet.dts is None or packet.pts is None:
                        continue
                    end = max(end, begin + packet.pts + (packet.duration or 0))
                    packet.pts, packet.dts = packet.pts + begin, packet.dts + begin
                    packet.stream = copy
                    sink.mux(packet)
                begin = end


def resident(command: list[str]) -> list[float]:
    """Run a command and return samples of its resident memory in mebibytes."""
    found: list[float] = []
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as process:
        status = Path(f"/proc/{process.pid}/status")
        while process.poll() is None:
            lines = status.read_text().splitlines()
            found += [int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")]
            time.sleep(SAMPLE_SECONDS)
    if process.returncode:
        raise SystemExit(process.returncode)
    return found


if __name__ == "__main__":
    main()
