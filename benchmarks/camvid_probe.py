"""Score networks on CamVid by a linear probe and nearest neighbours of their patches.

Command: ``python benchmarks/camvid_probe.py CAMVID RUN [RUN ...] --weights student teacher``
(``--untrained SEED ...`` for fresh weights, ``--baselines SEED ...`` for random filters and
colours, ``--worlds`` for the recognition world too, on its worlds to report). It prints a JSON line
for each network, in about ten seconds of one core: mIoU in % on the 50 test images, linearly of the
top level and of the level below, and by nearest neighbours at the top. Images are halved, a third
of the training images is used, and the probe is fitted by L-BFGS: numbers do not compare with
`midway eval segmentation --protocol camvid-linear`.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from midway.data.segmentation.classes import IGNORE
from midway.data.synthetic.shape_world import SHAPE_CLASSES
from midway.evals.probes.baselines import baselines
from midway.evals.probes.linear import linear_segmentation, segmentation_score
from midway.evals.probes.recognition import LabelledFrames, knn_classes
from midway.experiments.recognition import PROBE_WORLDS, WORLD
from midway.models.encoders.base import Encoder
from midway.models.weights.sources import EncoderSource, open_encoder

NUM_CLASSES, PATCH = 11, 8
HEIGHT, WIDTH = 352, 480
"""Part of the frames that patches of 8 pixels divide after halving; the last rows are the hood."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Labelled frames of a dataset."""

    train: LabelledFrames
    test: LabelledFrames
    num_classes: int


def main() -> None:
    """Score the networks."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("root", type=Path)
    parser.add_argument("networks", nargs="+")
    parser.add_argument("--weights", nargs="*", default=["student", "teacher"])
    parser.add_argument("--untrained", nargs="*", type=int, default=[])
    parser.add_argument("--baselines", nargs="*", type=int, default=[])
    parser.add_argument("--worlds", action="store_true")
    options = parser.parse_args()
    train, test = read(options.root, "train", every=3), read(options.root, "test", every=1)
    sets = {"CamVid": Frames(train=train, test=test, num_classes=NUM_CLASSES)}
    if options.worlds:
        train, test = (
            LabelledFrames.render(WORLD, of, number)
            for of, number in zip(PROBE_WORLDS["report"], (2, 1), strict=True)
        )
        sets["worlds"] = Frames(train=train, test=test, num_classes=len(SHAPE_CLASSES))
    for network in options.networks:
        for weights in options.weights:
            opened = open_encoder(EncoderSource(network=network, weights=weights))
            report(f"{network} {weights}", opened.encoder, sets)
    for seed in options.untrained:
        torch.manual_seed(seed)
        source = EncoderSource(network=options.networks[0], weights="student", untrained=True)
        report(f"untrained {seed}", open_encoder(source).encoder, sets)
    for seed in options.baselines:
        for name, encoder in baselines(PATCH, seed).items():
            report(f"{name} {seed}", encoder, sets)


def read(root: Path, split: str, *, every: int) -> LabelledFrames:
    """Return images of (HEIGHT / 2, WIDTH / 2) pixels and labels of (HEIGHT, WIDTH)."""
    images, labels = [], []
    for path in sorted((root / split).glob("*.png"))[::every]:
        image = Image.open(path).convert("RGB").crop((0, 0, WIDTH, HEIGHT))
        images.append(np.asarray(image.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BICUBIC)))
        labels.append(np.asarray(Image.open(root / f"{split}annot" / path.name))[:HEIGHT])
    classes = torch.from_numpy(np.stack(labels)).long()
    return LabelledFrames(
        images=torch.from_numpy(np.stack(images)),
        classes=classes.where(classes < NUM_CLASSES, IGNORE),
        instances=torch.zeros_like(classes),
    )


def report(name: str, encoder: Encoder, sets: Mapping[str, Frames]) -> None:
    """Print the scores of an encoder."""
    scores: dict[str, float] = {}
    for place, frames in sets.items():
        both = [(each.images, each.classes) for each in (frames.train, frames.test)]
        for level in (-1, -2)[: encoder.depth]:
            found, _ = linear_segmentation(
                encoder, both[0], both[1], frames.num_classes, levels=(level,)
            )
            scores[f"{place}, linear, level {level}"] = found.miou
        guess = knn_classes(encoder, frames.train, frames.test, frames.num_classes)
        scores[f"{place}, k-NN"] = segmentation_score(
            guess, frames.test.classes, frames.num_classes
        ).miou
    rounded = {each: round(score, 1) for each, score in scores.items()}
    sys.stdout.write(json.dumps({"network": name} | rounded) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
