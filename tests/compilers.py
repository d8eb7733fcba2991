"""Compilers for tests: the one that generates code takes its time."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

from midway.nn import compilation

Backend = str | Callable[..., Any]


@contextmanager
def compiler(backend: Backend | None = None) -> Iterator[None]:
    """Forget all compiled code afterwards; let `compile_regions` use a backend, if one is given.

    All else is as shipped, but for the options, which Inductor alone has.
    """
    import torch._dynamo

    config = torch._dynamo.config
    old = compilation.COMPILER, config.recompile_limit, config.optimize_ddp
    if backend is not None:
        compilation.COMPILER = compilation.COMPILER | {"backend": backend, "options": None}
    try:
        yield
    finally:
        compilation.COMPILER, config.recompile_limit, config.optimize_ddp = old
        torch._dynamo.reset()


class Counting:
    """A backend that runs the operations as they are, and counts what it is given."""

    def __init__(self) -> None:
        self.graphs = 0

    def __call__(self, graph: torch.fx.GraphModule, inputs: list[Any]) -> Callable[..., Any]:
        self.graphs += 1
        return graph.forward
