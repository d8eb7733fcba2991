"""Regions of a network: units of compilation and of activation recomputation."""

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
    # Drop path then draws the same numbers as without a compiler, from the same generator.
    "options": {"fallback_random": True},
}
"""Arguments of `torch.compile`."""
MAX_VARIANTS = 128
"""Largest number of compiled variants of all regions, by kind, size, dtype, student or teacher.
Pretraining has about 18; a benchmark against a plain step has three times as many per precision.
The default of torch is 8."""


class Region(nn.Module):
    """Part of a network that runs many times per step with the same code.

    A region must not enter or leave autocast: compiled code that does keeps autocast's weight cache
    alive, so that later steps train with stale weights (torch 2.13).
    """

    recompute = False
    """If True, the backward pass recomputes the activations instead of storing them."""

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`; with `recompute`, store its inputs only for the backward pass."""
        call = super().__call__
        if self.recompute and torch.is_grad_enabled():
            # It restores the generator and autocast, so drop path draws the same numbers again.
            return checkpoint(call, *args, use_reentrant=False, **kwargs)
        return call(*args, **kwargs)


def recompute_regions(module: nn.Module) -> None:
    """Make every region of `module` recompute its activations in the backward pass.

    It costs a second forward pass of the regions, and stores one input per block instead of all
    activations. Loss and gradients are unchanged.

    Raises:
        MidwayError: The module has no regions.

    """
    for region in _regions(module, "run.recompute"):
        region.recompute = True


def compile_regions(module: nn.Module) -> None:
    """Compile every region of `module` in place; compilation happens at its first call.

    Regions of one kind and size share their code, so compile time does not grow with the depth.
    Parameters and their names are unchanged. Copies of the module are not compiled.

    Raises:
        MidwayError: The module has no regions, or there is no compiler for torch's generated code.

    """
    import torch._dynamo  # here, because it takes seconds

    regions = _regions(module, "run.compile")
    if COMPILER["backend"] == "inductor":
        _check_compiler(is_cuda=any(p.is_cuda for p in module.parameters()))
    torch._dynamo.config.recompile_limit = MAX_VARIANTS
    # Without graph breaks at the borders of DDP's buckets: regions already end at every block.
    torch._dynamo.config.optimize_ddp = False
    for region in regions:
        region.compile(**COMPILER)


@contextmanager
def without_compiled_code(module: nn.Module) -> Iterator[None]:
    """Run `module` without compilation and without its compiled code in the enclosed block."""
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
    # Inductor generates C++ for a CPU; on CUDA, Triton compiles its kernel launchers from C.
    language, variable = ("C", "CC") if is_cuda else ("C++", "CXX")
    usual = ("gcc", "clang") if is_cuda else ("g++",)
    compilers = (os.environ[variable],) if variable in os.environ else usual
    if not any(shutil.which(each) for each in compilers):
        names = " or ".join(f"'{each}'" for each in compilers)
        raise MidwayError(
            f"no {language} compiler {names}, which torch needs to compile this network; install "
            f"one, set the environment variable {variable}, or train without compilation"
        )


def _regions(module: nn.Module, setting: str) -> list[Region]:
    found = [part for part in module.modules() if isinstance(part, Region)]
    if not found:
        raise MidwayError(
            f"{setting}: this network has no blocks of Midway's own to apply it to; leave it out"
        )
    return found
