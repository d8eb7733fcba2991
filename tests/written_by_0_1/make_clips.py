"""Write ``clips.tar.xz``; to be run with version 0.1 of midway (see README.md)."""

import json
import sys
import tarfile
from pathlib import Path

from midway.data.pairs import PairDataset, PairsConfig

from midway.cli import main
from midway.data.clips import find_clips
from midway.data.views import ViewsConfig
from midway.data.workers import Reading

sys.path.insert(0, str(Path(__file__).parents[2]))
from tests.data.made_videos import even_times, write_video

GAP = (0.5, 1.0)


def choices(root: str) -> list[tuple[str, float, float]]:
    """Clip and times of the pairs of three epochs."""
    found = find_clips(root, fps=30, gap_seconds=GAP)
    dataset = PairDataset(found, PairsConfig(gap_seconds=GAP), ViewsConfig(), seed=0)
    samples = [
        dataset.read(epoch, index, Reading({}, lambda clip: None))[0]
        for epoch in range(3)
        for index in range(len(dataset))
    ]
    return [(s.clip, s.source_seconds, s.target_seconds) for s in samples]


if __name__ == "__main__":
    videos = Path("videos")
    videos.mkdir()
    for name, frames in (("a", 31), ("b", 21)):
        write_video(videos / f"{name}.mp4", even_times(frames))
    main(["prepare", "videos", "--index-only"])
    main(["prepare", "videos", "frames.lance", "--fps", "5", "--jobs", "1"])
    chosen = {root: choices(root) for root in ("videos", "frames.lance")}
    Path("choices.json").write_text(json.dumps(chosen, indent=1))
    with tarfile.open("clips.tar.xz", "w:xz") as archive:
        for name in ("videos", "frames.lance", "choices.json"):
            archive.add(name)
