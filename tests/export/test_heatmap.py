"""ONNX heatmaps of forwarded feature perturbation equal those of the analysis."""

from pathlib import Path

import torch

import midway
from midway.analysis.perturbation import perturbation_heatmaps
from midway.export.heatmap import HeatmapPart
from midway.export.onnx import run_onnx, write_onnx


def test_a_file_of_the_bundled_network_equals_the_analysis(tmp_path: Path) -> None:
    network, file = midway.load("synthetic-tiny"), tmp_path / "heatmap.onnx"
    part = HeatmapPart(network, (48, 48), level=1)
    write_onnx(part, file, {})
    # One token and several ones: the number of tokens is dynamic.
    for batch in (1, 3):
        source, target, token = part.examples(batch=batch, seed=batch)
        found = run_onnx(file, {"source": source, "target": target, "token": token})
        expected = perturbation_heatmaps(network, source, target, level=1, tokens=token.tolist())
        torch.testing.assert_close(found["heatmap"], expected[0], atol=1e-5, rtol=0)
