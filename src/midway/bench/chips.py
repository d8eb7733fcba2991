"""GPUs for which a plan estimates the time of a run: peak throughput and memory."""

from dataclasses import dataclass

import torch

UTILISATION = (0.2, 0.4)
"""Assumed throughput as a fraction of the peak: cautious and optimistic. Not measured; the paper's
run of ViT-S (66 h on 2 A100) reached 0.057 by our count of its operations."""


@dataclass(frozen=True)
class Chip:
    """A GPU."""

    name: str
    memory_gigabytes: int
    entry: str
    """Name in Fabric's table of peaks."""
    divisor: int = 1
    """Factor by which the table exceeds the peak of dense products; 2 for sparse ones."""

    def peak(self, precision: str) -> tuple[float, str] | None:
        """Return the peak of dense matrix products in FLOP/s, and its precision.

        Args:
            precision: As in `RunConfig`. A chip without bfloat16 computes in float16.

        Returns:
            None if the table has no such chip.

        """
        # Fabric has no public access to another chip's entry than that of this machine.
        from lightning_fabric.utilities.throughput import _CUDA_FLOPS

        peaks = _CUDA_FLOPS.get(self.entry, {})
        if precision == "32-true":
            # Training does not lower the precision of float32 products to TF32.
            wanted = ((torch.float32, precision),)
        else:
            wanted = ((torch.bfloat16, "bf16-mixed"), (torch.float16, "16-mixed"))
            wanted = wanted[::-1] if precision == "16-mixed" else wanted
        for dtype, name in wanted:
            if dtype in peaks:
                return peaks[dtype] / (1 if dtype == torch.float32 else self.divisor), name
        return None


CHIPS = (
    Chip("T4", 16, "t4"),
    Chip("V100", 32, "v100 sxm"),
    Chip("L4", 24, "l4"),
    Chip("A100", 80, "a100"),
    Chip("H100 PCIe", 80, "h100 pcie"),
    Chip("H100 SXM", 80, "h100 sxm"),
    Chip("H200", 141, "h200 sxm1", 2),
)
"""Chips whose entry in Fabric's table is the dense peak, or twice it (H200). For GeForce, A40 and
A6000 the table contains the peak of CUDA cores."""
