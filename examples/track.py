"""Follow points through a video, and draw four of its frames.

    python examples/track.py VIDEO --point 120 80 --method flow -o tracks.png

Without a video, a synthetic one is made. `midway track` does the same on the command line.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

import midway
from midway.analysis.inputs import suited_window
from midway.analysis.track_pictures import track_strip
from midway.analysis.tracking import track_points
from midway.data.synthetic.write import write_videos
from midway.data.video.file import VideoFile
from midway.data.video.frames import VideoFrames
from midway.experiments.synthetic import WORLD
from midway.models.flow.predictor import FlowMethod, flow_predictor


def main() -> None:
    """Track points from the first frame on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("video", nargs="?", type=Path)
    parser.add_argument("--point", nargs=2, type=float, action="append", metavar=("X", "Y"))
    parser.add_argument("--method", choices=("midway", "features", "flow"), default="flow")
    parser.add_argument("--network", default="midway-tiny")
    parser.add_argument("--fps", type=float, default=4.0, help="frames per second to process")
    parser.add_argument("-o", "--out", type=Path, default=Path("tracks.png"))
    words = parser.parse_args()

    video = words.video or write_videos(words.out.parent, WORLD, seeds=[0])[0]
    points = torch.tensor(words.point or [(40.0, 40.0), (90.0, 60.0)])
    starts = torch.zeros(len(points), dtype=torch.long)
    # Matching of pixels needs no network; it drifts on plain surfaces.
    by_flow = words.method == "flow"
    network = None if by_flow else midway.load(words.network)
    with VideoFile(str(video)) as opened:
        frames = VideoFrames(opened, fps=words.fps)
        tracks = track_points(
            network,
            frames,
            points,
            starts,
            method=words.method,
            window=suited_window(network) if network else 0,
            flow=flow_predictor(FlowMethod(method="pixels")) if by_flow else None,
        )
        strip = track_strip(frames, {f"by {words.method}": tracks}, starts, frames.seconds)
    Image.fromarray(strip).save(words.out)
    ends = ", ".join(f"({x:.0f}, {y:.0f})" for x, y in tracks.points[:, -1].tolist())
    print(f"{words.out}: {len(frames)} frames; the points end at {ends}")


if __name__ == "__main__":
    main()
