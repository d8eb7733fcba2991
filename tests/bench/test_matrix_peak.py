"""The peak of matrix products is their number of operations by their time."""

import pytest
import torch

from midway.bench import matrix_peak as peak_module

CPU = torch.device("cpu")


def test_the_peak_is_the_work_of_the_largest_product_by_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peak_module, "SIZES", {"cpu": (16, 64)})
    monkeypatch.setattr(peak_module, "seconds_of", lambda work, device: 0.5)
    assert peak_module.matrix_peak(CPU, torch.float32) == 2 * 64**3 / 0.5
