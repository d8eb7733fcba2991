"""Click on a pixel: where does its patch go in the next frame?

    python examples/heatmap.py SOURCE TARGET --point 120 80 --network NETWORK -o heatmap.png

Without images, two frames of a synthetic world are drawn. `midway perturb` does the same on the
command line.
"""

import argparse
from pathlib import Path

import numpy as np
import torch

import midway
from midway.analysis import pictures
from midway.analysis.inputs import fit
from midway.analysis.perturbation import perturbation_heatmaps
from midway.data.images import read_image
from midway.experiments.motion import THINGS


def main() -> None:
    """Draw the heatmap of one patch over the target."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", nargs="*", type=Path, metavar="SOURCE TARGET")
    parser.add_argument("--point", nargs=2, type=float, default=(24.0, 24.0), metavar=("X", "Y"))
    parser.add_argument("--network", default="synthetic-tiny", help="a Midway network")
    parser.add_argument("-o", "--out", type=Path, default=Path("heatmap.png"))
    words = parser.parse_args()

    if words.images:
        frames = [read_image(str(path)) for path in words.images]
    else:
        world = THINGS.build(0)
        frames = [world.frame(seconds).image for seconds in (0.0, 0.5)]
    images = torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)  # (2, 3, height, width)
    network = midway.load(words.network)
    fitted = fit(images, network)  # resized to whole patches, and normalised
    point = torch.tensor([words.point])
    column, row = fitted.cells(point)[0].tolist()

    level = network.config.dynamics.levels[-1]
    source, target = fitted.images.split(1)
    token = row * fitted.grid[1] + column
    maps = perturbation_heatmaps(network, source, target, level=level, tokens=[token])

    source_pixels, target_pixels = (frame[None] for frame in frames)
    shown = {f"target, level {level}": maps[0]}  # (1, rows, columns)
    pictures.heatmaps(source_pixels, target_pixels, point, shown).savefig(words.out)
    hottest = divmod(int(maps.argmax()), fitted.grid[1])
    print(f"{words.out}: patch {(row, column)} goes to {hottest}, cosine {maps.max():.2f}")


if __name__ == "__main__":
    main()
