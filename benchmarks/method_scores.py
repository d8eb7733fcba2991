"""Score runs of any method by the same readouts with the same settings.

    python benchmarks/method_scores.py camvid CamVid RUN [RUN ...] --seed 0
    python benchmarks/method_scores.py synthetic - RUN [RUN ...] --seed 0

For each run it prints a JSON line: losses of the first and the last step, and mIoU in % of a linear
probe and of nearest neighbours on the student's top level, trained and untrained (fresh weights of
these sizes, drawn by the seed). Random filters and colours of the seed follow. PooDLe's ResNet is
read at its decoded map, which has the stride of the other networks.

Both readouts see the same patches: on CamVid those of every third training image and of the 50 test
images, halved and cut to a window; on synthetic worlds those of 100 training and 60 test frames of
worlds that no run has seen. A run takes about 10 s of a core on CamVid, and 4 s on worlds.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from midway.data.segmentation.classes import IGNORE
from midway.evals.probes.baselines import baselines
from midway.evals.probes.recognition import LabelledFrames, recognition
from midway.experiments.synthetic import WORLD
from midway.models.encoders.base import Encoder
from midway.models.weights.sources import load_encoder

PATCH = 8
CLASSES = {"camvid": 11, "synthetic": 6}
HEIGHT, WIDTH = 160, 224
"""Size of the windows of CamVid's halved images, which strides of 8 and 32 divide."""
TRAINING_WORLDS, TEST_WORLDS = range(3_000_000, 3_000_100), range(4_000_000, 4_000_060)

Frames = tuple[LabelledFrames, LabelledFrames]


def main() -> None:
    """Score the runs and the baselines."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("dataset", choices=[*CLASSES])
    parser.add_argument("root", type=Path, help="folder of CamVid; - for synthetic worlds")
    parser.add_argument("runs", nargs="*", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    num_classes = CLASSES[options.dataset]
    if options.dataset == "camvid":
        frames = camvid(options.root, "train", every=3), camvid(options.root, "test", every=1)
    else:
        training, test = (
            LabelledFrames.render(WORLD, s, 1) for s in (TRAINING_WORLDS, TEST_WORLDS)
        )
        frames = training, test
    for run in options.runs:
        weights = "student_decoder" if has_resnet(run) else "student"
        torch.manual_seed(options.seed)
        fresh = load_encoder(str(run), weights=weights, untrained=True)
        trained = load_encoder(str(run), weights=weights)
        line = {"run": run.name} | losses_of(run)
        line |= read_out(trained, frames, num_classes, "")
        write(line | read_out(fresh, frames, num_classes, "untrained "))
    for name, encoder in baselines(PATCH, options.seed).items():
        write({"baseline": name} | read_out(encoder, frames, num_classes, ""))


def camvid(root: Path, split: str, *, every: int) -> LabelledFrames:
    """Read every n-th labelled image of a split, halved."""
    images, labels = [], []
    for path in sorted((root / split).glob("*.png"))[::every]:
        label = Image.open(root / f"{split}annot" / path.name)
        images.append(halved(Image.open(path).convert("RGB"), Image.Resampling.BICUBIC))
        labels.append(halved(label, Image.Resampling.NEAREST))
    classes = torch.from_numpy(np.stack(labels)).long()
    return LabelledFrames(
        images=torch.from_numpy(np.stack(images)),
        classes=classes.where(classes < CLASSES["camvid"], IGNORE),
        instances=torch.zeros_like(classes),
    )


def halved(image: Image.Image, resampling: Image.Resampling) -> np.ndarray:
    """Return an image of CamVid at half its size, cut to the window."""
    return np.asarray(image.crop((0, 0, 2 * WIDTH, 2 * HEIGHT)).resize((WIDTH, HEIGHT), resampling))


def has_resnet(run: Path) -> bool:
    """Return whether the run trains PooDLe's ResNet."""
    method = json.loads((run / "config.json").read_text())["method"]
    return method["name"] == "poodle" and method["encoder"]["backbone"] == "resnet"


def losses_of(run: Path) -> dict[str, Any]:
    """Return steps and losses of the first and of the last step of a run."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    records = [line for line in lines if "loss" in line]
    return {
        record["step"]: {
            name: round(value, 3) for name, value in record.items() if name.endswith("loss")
        }
        for record in (records[0], records[-1])
    }


def read_out(encoder: Encoder, frames: Frames, num_classes: int, state: str) -> dict[str, float]:
    """Return the mIoU in % of both readouts of the top level."""
    score = recognition(encoder, *frames, num_classes)
    return {
        f"{state}linear": round(score.linear.miou, 1),
        f"{state}k-NN": round(score.knn.miou, 1),
    }


def write(line: dict[str, Any]) -> None:
    """Print a line at once."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
