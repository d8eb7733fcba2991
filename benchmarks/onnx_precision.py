"""Compare exported flow by onnxruntime and by torch with torch in float64, on random images.

Command: ``python benchmarks/onnx_precision.py`` (two minutes of one core). It prints a JSON line
for each network and size: the largest differences in pixels over five batches of three pairs, and
the largest ratio of the mean of a token to its standard deviation in the encoder's layer norms.
"""

import json
import sys
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

import midway
from midway.export.matching import MatchingPart
from midway.export.onnx import run_onnx
from midway.export.write import write_part
from midway.models.encoders.vit import EncoderConfig
from midway.models.midway import HeadConfig, MidwayNetwork, NetworkConfig

SEEDS = range(1, 6)
VIT_SIZES = {(64, 96): 9, (80, 64): 9}


def vit_small(bias: float) -> MidwayNetwork:
    """Draw a ViT-S whose flow is not zero; `bias` is the mean of the encoder's biases."""
    torch.manual_seed(0)
    encoder = EncoderConfig(image_size=(64, 96))
    head = HeadConfig(hidden=16, bottleneck=8, num_prototypes=32)
    network = MidwayNetwork(NetworkConfig(encoder=encoder, head=head))
    for name, each in network.named_parameters():
        is_bias = "encoder." in name and name.endswith("bias")
        mean = 0.0 if each.ndim > 1 else bias if is_bias else 0.5
        nn.init.normal_(each, mean=mean, std=0.5 * encoder.width**-0.5)
    return network.eval()


def compare(network: MidwayNetwork, size: tuple[int, int], level: int) -> dict[str, float]:
    """Return the largest differences over all seeds."""
    part = MatchingPart(network, size, level=level, radius=1).eval()
    exact, ratios = deepcopy(part).double(), [0.0]

    def note(_: nn.Module, inputs: tuple[Tensor]) -> None:
        tokens = inputs[0]
        ratios[0] = max(ratios[0], float((tokens.mean(-1).abs() / tokens.std(-1)).max()))

    for layer in exact.network.encoder.modules():
        if isinstance(layer, nn.LayerNorm):
            layer.register_forward_pre_hook(note)
    rows: list[list[float]] = []
    with TemporaryDirectory() as folder, torch.no_grad():
        file = Path(folder, "flow.onnx")
        write_part(part, file)
        for seed in SEEDS:
            pair = part.examples(batch=3, seed=seed)
            by_onnx = run_onnx(file, dict(zip(part.inputs, pair, strict=True)))["flow"]
            by_torch = part(*pair)["flow"]
            truth = exact(*(each.double() for each in pair))["flow"]
            pairs = ((by_onnx, truth), (by_torch, truth), (by_onnx, by_torch))
            rows.append([float((a - b).abs().max()) for a, b in pairs] + [float(truth.abs().max())])
    names = ("onnx_float64", "torch_float64", "onnx_torch", "longest_flow")
    worst = zip(names, (max(column) for column in zip(*rows, strict=True)), strict=True)
    return {**{name: float(f"{each:.1e}") for name, each in worst}, "ratio": round(ratios[0], 1)}


def main() -> None:
    """Measure."""
    networks = {
        "synthetic-tiny": (midway.load("synthetic-tiny"), {(48, 48): 1, (48, 64): 1}),
        "ViT-S": (vit_small(0.0), VIT_SIZES),
        "ViT-S, biases around 0.5": (vit_small(0.5), VIT_SIZES),
    }
    for name, (network, sizes) in networks.items():
        for size, level in sizes.items():
            row = {"network": name, "size": size, **compare(network, size, level)}
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
