"""The toy objective with blocks in it, compiled and recomputed; as a program, one rank of it."""

import copy
import os
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from midway.nn.blocks import Block
from midway.train.fit import FitSummary
from tests.compilers import Backend, compiler

from .toy import DIM, Toy, ToyLoader, run_config, train


class Blocks(nn.Module):
    """Two tokens a sample through two blocks to one number."""

    def __init__(self, drop_path: float) -> None:
        super().__init__()
        self.blocks = nn.Sequential(
            *(Block(DIM // 2, 2, qkv_bias=True, norm_eps=1e-6, drop_path=p) for p in (0, drop_path))
        )
        self.last = nn.Linear(DIM, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.blocks(x.unflatten(1, (2, -1))).flatten(1))


class BlockToy(Toy):
    """Its student and teacher are blocks."""

    def __init__(self, drop_path: float = 0.5) -> None:
        super().__init__()
        self.student = Blocks(drop_path)  # pyright: ignore[reportAttributeAccessIssue]
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()


def train_fast(
    folder: Path,
    backend: Backend,
    loader: ToyLoader | None = None,
    *,
    toy: Toy | None = None,
    resume: bool = False,
) -> FitSummary:
    run = run_config(folder, compile=True, recompute=True)
    with compiler(backend):
        return train(run, loader, toy=toy or BlockToy(), resume=resume)


def main() -> None:
    torch.set_num_threads(1)
    folder, rank = Path(sys.argv[1]), int(os.environ["RANK"])
    loader = ToyLoader(rank=rank, world_size=int(os.environ["WORLD_SIZE"]))
    toy = BlockToy(drop_path=0.0)
    train_fast(folder, "eager", loader, toy=toy)
    torch.save(toy.state_dict(), folder / f"rank_{rank}.pt")


if __name__ == "__main__":
    main()
