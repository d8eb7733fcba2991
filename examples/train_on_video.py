"""Train a small network on a folder of video, from Python.

    python examples/train_on_video.py FOLDER --steps 200 --run runs/example

Without a folder, a few synthetic videos are made. `midway train own.midway_tiny --data.root FOLDER`
does the same on the command line.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import midway
from midway.data.synthetic.write import write_videos
from midway.experiments import camvid
from midway.experiments.base import train
from midway.experiments.synthetic import WORLD


def main() -> None:
    """Train, and print the first and last loss."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--steps", type=int, default=200)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--run", type=Path, default=Path("runs/example"))
    words = parser.parse_args()

    folder = words.folder
    if folder is None:
        folder = words.run.with_name(f"{words.run.name}-videos")
        write_videos(folder, replace(WORLD, num_frames=24), seeds=range(4))

    # An experiment is a value: take one, and replace what differs.
    base = camvid.midway_tiny()
    experiment = replace(
        base,
        data=replace(
            base.data, root=str(folder), batch_size=words.batch_size, starts="random", num_workers=0
        ),
        run=replace(base.run, folder=words.run, steps=words.steps, precision="32-true"),
    )
    summary = train(experiment)

    records = [json.loads(line) for line in (words.run / "metrics.jsonl").read_text().splitlines()]
    encoder = midway.load_encoder(str(words.run))  # the EMA teacher of the newest checkpoint
    print(f"{summary.steps} steps: loss {records[0]['loss']:.2f} to {records[-1]['loss']:.2f}")
    print(f"{words.run}: an encoder of width {encoder.width} with {encoder.depth} levels")


if __name__ == "__main__":
    main()
