"""Evaluation of a module in the middle of its training."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from midway.nn.compilation import without_compiled_code


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Enter evaluation mode without gradients; on exit, restore the mode of each part."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        # Uncompiled, because torch would compile the regions again for every image size.
        with torch.no_grad(), without_compiled_code(module):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
