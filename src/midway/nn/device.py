"""Device of evaluations and commands; trainings take theirs from Fabric."""

from typing import Literal

import torch

Accelerator = Literal["auto", "cpu"]


def pick_device(accelerator: Accelerator = "auto") -> torch.device:
    """Return the current CUDA device if there is one and "auto" asks for it, else the CPU."""
    use_gpu = accelerator == "auto" and torch.cuda.is_available()
    return torch.device("cuda" if use_gpu else "cpu")
