"""Regions of a network: what is compiled as one, and what can be computed anew in backward."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from midway.errors import MidwayError

COMPILER: dict[str, Any] = {
    "backend": "inductor",
    # Crops come in few sizes, and a batch is always full.
    "dynamic": False,
    "fullgraph": True,
    # Drop path draws what it draws without a compiler, from the same generator.
    "options": {"fallback_random": True},
}
"""How `torch.compile` is called."""
MAX_VARIANTS = 128
"""Of the code of all regions: kinds, sizes, dtypes, student or teacher, all of which serve at every
step. Pretraining has some 18, and a benchmark against a plain step three times as many for each
precision; torch's own limit is 8."""


class Region(nn.Module):
    """A part of a network that runs many times a step, and is the same code each time.

    It must not switch autocast: compiled, that leaves autocast's cache of weights open for ever,
    and what trains after it trains with weights of the past (torch 2.13).
    """

    recompute = False
    """Whether backward computes the activations anew instead of keeping them."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """What `forward` gives, keeping nothing but its inputs for backward if so wished."""
        call = super().__call__
        if self.recompute and torch.is_grad_enabled():
            # Draws again what was drawn before, under the same autocast.
            return checkpoint(call, *args, use_reentrant=False, **kwargs)
        return call(*args, **kwargs)


def recompute_regions(module: nn.Module) -> None:
    """Let every region below `module` compute its activations anew in backward.

    That costs a second forward pass of them, and keeps one input a block instead of all that lies
    between. Loss and gradients stay the same.

    Raises:
        MidwayError: There are none.

    """
    for region in _regions(module, "run.recompute"):
        region.recompute = True


def compile_regions(module: nn.Module) -> None:
    """Let torch compile every region below `module` when it first runs, in place.

    Regions of a kind and size share their code, so that the depth of a network costs no time.
    Parameters, their names and copies of the module are as before; copies are not compiled.

    Raises:
        MidwayError: There are none, or no compiler for the code that torch generates.

    """
    import torch._dynamo  # takes seconds

    regions = _regions(module, "run.compile")
    if COMPILER["backend"] == "inductor":
        _check_compiler(is_cuda=any(p.is_cuda for p in module.parameters()))
    torch._dynamo.config.recompile_limit = MAX_VARIANTS
    # DDP's buckets need no cuts in the code: gradients come block by block as it is.
    torch._dynamo.config.optimize_ddp = False
    for region in regions:
        region.compile(**COMPILER)


@contextmanager
def without_compiled_code(module: nn.Module) -> Iterator[None]:
    """No part of `module` runs compiled code for the time being, nor is any compiled."""
    regions = [part for part in module.modules() if isinstance(part, Region)]
    compiled = [(region, region._compiled_call_impl) for region in regions]
    for region, _ in compiled:
        region._compiled_call_impl = None
    try:
        yield
    finally:
        for region, call in compiled:
            region._compiled_call_impl = call


def _check_compiler(*, is_cuda: bool) -> None:
    # Inductor writes C++ for a CPU; on CUDA, Triton builds what starts its kernels from C.
    language, variable = ("C", "CC") if is_cuda else ("C++", "CXX")
    usual = ("gcc", "clang") if is_cuda else ("g++",)
    compilers = (os.environ[variable],) if variable in os.environ else usual
    if not any(shutil.which(each) for each in compilers):
        names = " or ".join(f"'{each}'" for each in compilers)
        raise MidwayError(
            f"no {language} compiler {names}, which torch needs to compile this network; install "
            f"one, name another in the environment's {variable}, or do without compilation"
        )


def _regions(module: nn.Module, setting: str) -> list[Region]:
    found = [part for part in module.modules() if isinstance(part, Region)]
    if not found:
        raise MidwayError(
            f"{setting}: this network has no blocks of Midway's own to apply it to; leave it out"
        )
    return found
