"""Evaluation that leaves no trace in a module."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from midway.nn.compilation import without_compiled_code


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode without gradients; each part has its own mode back afterwards.

    Code that was compiled for training rests: it would be compiled anew for every size of image.
    """
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        with torch.no_grad(), without_compiled_code(module):
            yield
    finally:
        for part, mode in modes:
            part.training = mode
