"""Features of an image, drawn by their first three principal components.

    python examples/features.py IMAGE --network NETWORK -o features.png

Without an image, a synthetic one is drawn.
"""

import argparse
from pathlib import Path

import torch
from PIL import Image

import midway
from midway.analysis.token_colours import fit_colours
from midway.data.images import read_image
from midway.experiments.synthetic import WORLD


def main() -> None:
    """Write an image beside its features."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("image", nargs="?", type=Path)
    parser.add_argument("--network", default="synthetic-tiny", help="run, file, timm:NAME, ...")
    parser.add_argument("-o", "--out", type=Path, default=Path("features.png"))
    words = parser.parse_args()

    if words.image:
        image = Image.fromarray(read_image(str(words.image)))
    else:
        image = Image.fromarray(WORLD.build(0).frame(0.0).image)
    encoder = midway.load_encoder(words.network)
    # The whole image, twice as large as in training, so that its patches are finer.
    side = 2 * encoder.config.image_size[0]
    inputs = midway.transform(encoder, size=side, crop=False)(image)  # (3, height, width)
    with torch.no_grad():
        (features,) = encoder.maps(inputs[None], [-1])  # (1, channels, rows, columns)

    tokens = features[0].permute(1, 2, 0)  # (rows, columns, channels)
    colours = fit_colours(tokens.flatten(0, 1))(tokens)  # (rows, columns, 3), bytes
    drawn = Image.fromarray(colours).resize(image.size, Image.Resampling.NEAREST)
    both = Image.new("RGB", (2 * image.width, image.height))
    both.paste(image, (0, 0))
    both.paste(drawn, (image.width, 0))
    both.save(words.out)
    print(f"{words.out}: {tuple(features.shape[1:])} features, coloured by principal components")


if __name__ == "__main__":
    main()
