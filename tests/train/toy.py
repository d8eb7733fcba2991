"""A tiny objective and loader; run as a program it is one training in a process of its own."""

import argparse
import copy
import json
import os
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from midway.train.fit import FitSummary, fit
from midway.train.health import Probe
from midway.train.launch import launch
from midway.train.objective import Objective, Progress, StepOutput
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig
from midway.train.schedules import cosine

DIM = 8
CONFIG = {"toy": True}
OPTIM = OptimConfig(lr=0.05, scale_lr=False, warmup_epochs=0.5, clip_norm=1.0)


class Mlp(nn.Module):
    def __init__(self, p_dropout: float) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(DIM, 16), nn.Linear(16, 1)
        self.p_dropout = p_dropout

    def forward(self, x: Tensor) -> Tensor:
        return self.last(F.dropout(F.gelu(self.first(x)), self.p_dropout, self.training))


class Toy(Objective):
    """Regression by an MLP with dropout, and a teacher that follows it."""

    def __init__(self, p_dropout: float = 0.5) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.student = Mlp(p_dropout)
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.register_buffer("seen", torch.zeros(()))
        self.seen: Tensor

    def forward(self, batch: "ToyBatch") -> StepOutput:
        self.seen += 1
        wanted = batch.x.sum(1, keepdim=True)
        loss = F.mse_loss(self.student(batch.x), wanted)
        with torch.no_grad():
            logs = {"teacher_loss": F.mse_loss(self.teacher(batch.x), wanted)}
        return StepOutput(loss=loss, logs=logs)

    def after_step(self, progress: Progress) -> None:
        momentum = cosine(progress.fraction, 0.9, 1.0)
        for old, new in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            old.lerp_(new, 1 - momentum)


@dataclass(frozen=True)
class ToyBatch:
    x: Tensor

    def __len__(self) -> int:
        return len(self.x)

    def to(self, device: torch.device) -> "ToyBatch":
        return ToyBatch(self.x.to(device))


@dataclass
class ToyLoader:
    """Samples by number; rank r of w has the r-th of w equal parts of each global batch.

    A batch whose step is in `nan_steps` holds NaN; at `signal_step` this process gets a signal.
    """

    batch_size: int = 8
    rank: int = 0
    world_size: int = 1
    steps_per_epoch: int = 4
    nan_steps: tuple[int, ...] = ()
    signal_step: int = -1
    signal_number: int = signal.SIGTERM

    @property
    def samples_per_step(self) -> int:
        return self.batch_size * self.world_size

    @property
    def epochs_per_step(self) -> float:
        return 1 / self.steps_per_epoch

    def batches(self, start_step: int, stop_step: int) -> Iterator[ToyBatch]:
        for step in range(start_step, stop_step):
            if step == self.signal_step:
                os.kill(os.getpid(), self.signal_number)
            first = (step * self.world_size + self.rank) * self.batch_size
            x = torch.stack([sample(first + i) for i in range(self.batch_size)])
            yield ToyBatch(x * float("nan") if step in self.nan_steps else x)


def sample(index: int) -> Tensor:
    return torch.randn(DIM, generator=torch.Generator().manual_seed(index))


def run_config(folder: Path, **changes: object) -> RunConfig:
    settings: dict[str, object] = {
        "folder": folder,
        "steps": 10,
        "precision": "32-true",
        "accelerator": "cpu",
        "log_every": 1,
        "checkpoint_every": 4,
    }
    return RunConfig(**(settings | changes))  # pyright: ignore[reportArgumentType]


def train(
    run: RunConfig,
    loader: ToyLoader | None = None,
    *,
    toy: Toy | None = None,
    resume: bool = False,
    probe: Probe | None = None,
) -> FitSummary:
    return fit(
        toy or Toy(),
        loader or ToyLoader(),
        fabric=launch(run),
        optim=OPTIM,
        run=run,
        config=CONFIG,
        resume=resume,
        flops_per_sample=1e9,
        probe=probe,
    )


def losses(folder: Path) -> list[tuple[int, float, float]]:
    """Step, loss and teacher loss of every line of the log, to the last digit."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    return [(r["step"], r["loss"], r["teacher_loss"]) for r in records]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--dropout", type=float, default=0.0)
    parser.add_argument("--kind", choices=["SIGTERM", "SIGKILL"], default="SIGTERM")
    parser.add_argument("--stop-step", type=int, default=-1)
    parser.add_argument("--stop-rank", type=int, default=0)
    parser.add_argument("--resume", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(1)

    rank, world_size = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
    loader = ToyLoader(
        rank=rank,
        world_size=world_size,
        signal_step=args.stop_step if rank == args.stop_rank else -1,
        signal_number=signal.Signals[args.kind],
    )
    objective = Toy(args.dropout)
    summary = train(run_config(args.folder), loader, toy=objective, resume=args.resume)
    torch.save(objective.state_dict(), args.folder / f"rank_{rank}.pt")
    (args.folder / f"summary_{rank}.json").write_text(
        json.dumps({"steps": summary.steps, "interrupted": summary.interrupted})
    )


if __name__ == "__main__":
    main()
