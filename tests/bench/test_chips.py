"""Peaks of known GPUs are dense ones, by their data sheets."""

import pytest

from midway.bench.chips import CHIPS

DENSE = {"T4": 65, "V100": 125, "L4": 121, "A100": 312, "H100 PCIe": 756, "H100 SXM": 989}
"""TFLOP/s of dense float16 products, from NVIDIA's data sheets."""


@pytest.mark.parametrize("chip", CHIPS, ids=lambda chip: chip.name)
def test_peaks_in_each_precision(chip):
    half, half_name = chip.peak("16-mixed")
    mixed, mixed_name = chip.peak("bf16-mixed")
    assert half_name == "16-mixed"
    assert half == mixed == pytest.approx(1e12 * DENSE.get(chip.name, 989), rel=0.02)
    assert (mixed_name == "16-mixed") == (chip.name in ("T4", "V100"))
    whole, name = chip.peak("32-true")
    assert name == "32-true"
    assert whole < half / 3


def test_a_chip_that_the_table_lacks_has_no_peak():
    assert CHIPS[0].__class__("none", 1, "none").peak("bf16-mixed") is None
