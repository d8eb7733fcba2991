"""Compare two encoders by k-nearest neighbours of their patch features, without training.

    python examples/compare_encoders.py NETWORK OTHER

Networks are runs, files, names of `midway list networks`, or timm:NAME. Images and labels are those
of synthetic worlds; `midway eval knn_segmentation` does this for datasets such as CamVid.
"""

import argparse

import torch

import midway
from midway.data.synthetic.world import CLASS_NAMES
from midway.evals.probes.recognition import LabelledFrames, recognition
from midway.experiments.synthetic import WORLD


def main() -> None:
    """Print one row of scores for each encoder."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("networks", nargs="*", default=["synthetic-tiny", "random"])
    parser.add_argument("--train", type=int, default=24, help="worlds in the memory")
    parser.add_argument("--test", type=int, default=8, help="worlds to classify")
    words = parser.parse_args()

    # No network has been trained on worlds of these seeds.
    train = LabelledFrames.render(WORLD, range(16_000_000, 16_000_000 + words.train), 1)
    test = LabelledFrames.render(WORLD, range(17_000_000, 17_000_000 + words.test), 1)
    print(f"{'network':<24} {'k-NN mIoU, %':>14} {'linear mIoU, %':>16}")
    for name in words.networks:
        torch.manual_seed(0)  # for weights that are drawn
        encoder = midway.load_encoder(name)
        found = recognition(encoder, train, test, len(CLASS_NAMES))
        print(f"{name[-24:]:<24} {found.knn.miou:>14.1f} {found.linear.miou:>16.1f}")


if __name__ == "__main__":
    main()
