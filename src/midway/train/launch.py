"""Processes of a run: start them, agree on a result, and stop them on a signal."""

import atexit
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from subprocess import Popen, TimeoutExpired
from threading import Timer, get_ident
from types import FrameType, TracebackType
from typing import Self

import torch
import torch.distributed
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.strategy import Strategy

from midway.allocator import keep_freed_memory
from midway.cores import usable_cores
from midway.errors import MidwayError, one_line
from midway.nn.device import limit_threads
from midway.train.run import RunConfig
from midway.train.stuck import StuckWatch

PATIENCE_SECONDS = 10.0
"""Time from a signal until the wait for a batch is given up; batches usually come earlier."""
GROUP_TIMEOUT = timedelta(minutes=30)
"""Time that ranks wait for another; the first one may measure or write while the others wait."""


def launch(run: RunConfig) -> Fabric:
    """Start or join the processes of a run; several processes train by data parallelism.

    Under torchrun and SLURM the launcher sets the numbers of processes and machines.

    Raises:
        MidwayError: The machine has fewer GPUs than requested.

    """
    devices, num_nodes, plugins = run.devices, run.num_nodes, []
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
        # Explicit, because Fabric would detect SLURM first if torchrun runs in a SLURM job.
        plugins.append(TorchElasticEnvironment())
    elif SLURMEnvironment.detect():
        num_nodes = int(os.environ["SLURM_NNODES"])
        devices = int(os.environ["SLURM_NTASKS"]) // num_nodes
    if run.accelerator == "gpu" and torch.cuda.device_count() < devices:
        raise MidwayError(
            f"not enough GPUs: {torch.cuda.device_count()} found, {devices} wanted; "
            "set --run.devices, or --run.accelerator cpu"
        )
    fabric = Fabric(
        accelerator=run.accelerator,
        strategy=distributed_strategy(devices * num_nodes),
        devices=devices,
        num_nodes=num_nodes,
        plugins=plugins,
    )
    fabric.launch()
    if fabric.device.type == "cpu":
        keep_freed_memory()
        limit_threads(usable_cores())
    # Fabric does this for NCCL only; gloo aborts a process that exits while its threads run.
    atexit.register(_leave_process_group)
    # Registered later, so called before: a stopped process would otherwise stay for ever.
    atexit.register(end_processes, getattr(fabric.strategy.launcher, "procs", []))
    return fabric


def distributed_strategy(world_size: int) -> Strategy | str:
    """Return Fabric's strategy: DDP for several processes, else "auto".

    Gradients are views of DDP's buckets, which saves one copy of them in memory and one pass.
    """
    if world_size == 1:
        return "auto"
    return DDPStrategy(gradient_as_bucket_view=True, timeout=GROUP_TIMEOUT)


@contextmanager
def lost_ranks_named(folder: Path) -> Iterator[None]:
    """Convert errors of the communication between ranks into one line.

    Args:
        folder: Folder of the run, which can be resumed.

    Raises:
        MidwayError: Another rank ended or does not answer.

    """
    try:
        yield
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        if not isinstance(error, torch.distributed.DistError) and "gloo" not in reason:
            raise
        raise MidwayError(
            f"{folder}: another process of the run ended or does not answer ({reason[:200]}); see "
            f"its output, then continue by --resume {folder}"
        ) from error


def on_first_rank(fabric: Fabric, check: Callable[[], None]) -> None:
    """Run a check on the first rank only.

    Raises:
        MidwayError: On every rank, if the check raised one or an `OSError` on the first.

    """
    problem = None
    if fabric.is_global_zero:
        try:
            check()
        except (MidwayError, OSError) as error:
            problem = str(error) if isinstance(error, MidwayError) else one_line(error)
    # The other ranks must stop too, else they would wait for the first one for ever.
    if problem := fabric.broadcast(problem):
        raise MidwayError(problem)


class StoppedWaitingError(Exception):
    """The run was asked to stop, and the batch of `step` does not come.

    Args:
        step: Optimiser steps completed.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"stopped while waiting for the batch of step {step}")
        self.step = step


class Interruption:
    """Context that turns SIGTERM and the first SIGINT into a flag common to all ranks.

    A signal may reach some ranks only, but all of them must leave the loop after the same step. A
    second SIGINT raises KeyboardInterrupt.
    """

    def __init__(self) -> None:
        self._noted = False
        self._is_patient = True
        self._waits_for: int | None = None
        self._timer: Timer | None = None
        self._group = None
        self._watch = StuckWatch()
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            # gloo reduces between the hosts, so that asking does not wait for the devices.
            self._group = torch.distributed.new_group(timeout=GROUP_TIMEOUT, backend="gloo")

    def __enter__(self) -> Self:
        if self._group is not None:
            self._watch.__enter__()
        self._previous = {
            number: signal.signal(number, self._note) for number in (signal.SIGTERM, signal.SIGINT)
        }
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._timer:
            self._timer.cancel()
        if self._group is not None:
            self._watch.__exit__(kind, error, traceback)

    @contextmanager
    def waiting(self, step: int, *, enabled: bool) -> Iterator[None]:
        """Let a signal end the wait for a batch that does not come for `PATIENCE_SECONDS`.

        Several ranks go on to wait, because all of them must stop after the same step.

        Args:
            step: Optimiser steps completed.
            enabled: False within a step, whose forward passes may have changed buffers.

        Raises:
            StoppedWaitingError: The run was asked to stop, and the batch did not come in time.

        """
        self._waits_for = step if enabled and self._group is None else None
        try:
            yield
        finally:
            self._waits_for = None

    def requested(self) -> bool:
        """Return whether any rank has received a signal; every rank must call it after each step.

        It is a collective operation.
        """
        if self._group is None:
            return self._noted
        flag = torch.tensor(int(self._noted))
        torch.distributed.all_reduce(flag, torch.distributed.ReduceOp.MAX, self._group)
        return bool(flag)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._watch.handled()
        if self._noted and not self._is_patient and self._waits_for is not None:
            raise StoppedWaitingError(self._waits_for)
        self._noted = True
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        if self._timer is None:
            self._timer = Timer(PATIENCE_SECONDS, self._insist, args=(get_ident(),))
            self._timer.daemon = True
            self._timer.start()

    def _insist(self, main_thread: int) -> None:
        self._is_patient = False
        # To the main thread itself, as only this interrupts its wait.
        signal.pthread_kill(main_thread, signal.SIGTERM)


def end_processes(processes: Sequence[Popen[bytes]], patience_seconds: float = 30.0) -> None:
    """Wait for processes that this one started, and kill those that do not end (SIGSTOP).

    Args:
        processes: The processes.
        patience_seconds: Time to wait for each.

    """
    for process in processes:
        try:
            process.wait(patience_seconds)
        except TimeoutExpired:
            process.kill()
            process.wait()


def _leave_process_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
