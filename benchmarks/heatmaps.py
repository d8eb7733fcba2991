"""Time the heatmaps of a pair: all 196 patches of 224 pixels, K = 16, ViT-S, one level.

Command: ``python benchmarks/heatmaps.py`` (``--device cuda``). It prints a JSON line for each type
of the tangents: wall-clock seconds for all patches, and for one patch including both encoders.
"""

import argparse
import json
import sys

import torch

from midway.analysis.perturbation import perturbation_heatmaps
from midway.bench.stopwatch import seconds_of
from midway.models.midway import MidwayNetwork, NetworkConfig

LEVEL = 9
CHUNKS = {"cpu": 16, "cuda": 512}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", choices=[*CHUNKS], default="cpu")
    device = torch.device(parser.parse_args().device)
    torch.manual_seed(0)
    network = MidwayNetwork(NetworkConfig()).to(device).eval()
    source, target = torch.randn(2, 1, 3, 224, 224, device=device)
    for dtype in (torch.bfloat16, torch.float32):

        def draw(tokens: list[int] | None, dtype: torch.dtype = dtype) -> None:
            perturbation_heatmaps(
                network,
                source,
                target,
                level=LEVEL,
                tokens=tokens,
                chunk=CHUNKS[device.type],
                dtype=dtype,
            )

        draw([0])
        one = seconds_of(lambda: draw([100]), device)
        every = seconds_of(lambda: draw(None), device)
        row = {
            "device": device.type,
            "threads": torch.get_num_threads(),
            "tangents": str(dtype).removeprefix("torch."),
            "all_seconds": round(every, 2),
            "one_seconds": round(one, 3),
        }
        sys.stdout.write(json.dumps(row) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
