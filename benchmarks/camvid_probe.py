"""Score networks on CamVid by a linear probe of their patches, in ten seconds of one core each.

Command: ``python benchmarks/camvid_probe.py CAMVID RUN [RUN ...] --weights student teacher``
(``--untrained SEED ...`` for fresh weights, ``--baselines SEED ...`` for random filters and
colours). It prints a JSON line for each network: mIoU in % of the top level and of the level below,
on the 50 test images. Images are halved, a third of the training images is used, and the probe is
fitted by L-BFGS: numbers do not compare with `midway eval segmentation --protocol camvid-linear`.
"""

import argparse
import json
import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from midway.data.segmentation.classes import IGNORE
from midway.evals.probes.baselines import baselines
from midway.evals.probes.linear import linear_segmentation
from midway.models.encoders.base import Encoder
from midway.models.weights.sources import EncoderSource, open_encoder

NUM_CLASSES, PATCH = 11, 8
HEIGHT, WIDTH = 352, 480
"""Part of the frames that patches of 8 pixels divide after halving; the last rows are the hood."""


def main() -> None:
    """Score the networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--weights", nargs="*", default=["student", "teacher"])
    parser.add_argument("--untrained", nargs="*", type=int, default=[])
    parser.add_argument("--baselines", nargs="*", type=int, default=[])
    options = parser.parse_args()
    train, test = read(options.root, "train", every=3), read(options.root, "test", every=1)
    for network in options.networks:
        for weights in options.weights:
            opened = open_encoder(EncoderSource(network=network, weights=weights))
            report(f"{network} {weights}", opened.encoder, train, test)
    for seed in options.untrained:
        torch.manual_seed(seed)
        source = EncoderSource(network=options.networks[0], weights="student", untrained=True)
        report(f"untrained {seed}", open_encoder(source).encoder, train, test)
    for seed in options.baselines:
        for name, encoder in baselines(PATCH, seed).items():
            report(f"{name} {seed}", encoder, train, test)


def read(root: Path, split: str, *, every: int) -> tuple[Tensor, Tensor]:
    """Return images as uint8 (N, HEIGHT / 2, WIDTH / 2, 3) and labels (N, HEIGHT, WIDTH)."""
    images, labels = [], []
    for path in sorted((root / split).glob("*.png"))[::every]:
        image = Image.open(path).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
        images.append(np.asarray(image.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BICUBIC)))
        labels.append(np.asarray(Image.open(root / f"{split}annot" / path.name))[:HEIGHT])
    classes = torch.from_numpy(np.stack(labels)).long()
    return torch.from_numpy(np.stack(images)), classes.where(classes < NUM_CLASSES, IGNORE)


def report(
    name: str, encoder: Encoder, train: tuple[Tensor, Tensor], test: tuple[Tensor, Tensor]
) -> None:
    """Print the scores of an encoder."""
    scores = {
        f"level {level}": round(
            linear_segmentation(encoder, train, test, NUM_CLASSES, levels=(level,))[0].miou, 1
        )
        for level in (-1, -2)[: encoder.depth]
    }
    sys.stdout.write(json.dumps({"network": name} | scores) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
