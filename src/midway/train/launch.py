"""Processes and devices of a run: one, several of a machine, torchrun or SLURM."""

import atexit
import os
from collections.abc import Callable

import torch
from lightning_fabric import Fabric
from lightning_fabric.plugins.environments.slurm import SLURMEnvironment
from lightning_fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning_fabric.strategies.ddp import DDPStrategy
from lightning_fabric.strategies.strategy import Strategy

from midway.errors import MidwayError
from midway.train.cpu_memory import keep_freed_memory
from midway.train.run import RunConfig


def launch(run: RunConfig) -> Fabric:
    """Start or join the processes of a run; several of them train by data parallelism.

    Under torchrun and SLURM the launcher's numbers of processes and machines hold.

    Raises:
        MidwayError: If the machine has not the GPUs that are asked for.

    """
    devices, num_nodes, plugins = run.devices, run.num_nodes, []
    if TorchElasticEnvironment.detect():
        devices = int(os.environ["LOCAL_WORLD_SIZE"])
        num_nodes = int(os.environ["WORLD_SIZE"]) // devices
        # Named, because Fabric would look at SLURM first when torchrun runs in one of its jobs.
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
    # Fabric does it for NCCL only, and gloo aborts a process that ends while its threads run.
    atexit.register(_leave_process_group)
    return fabric


def distributed_strategy(world_size: int) -> Strategy | str:
    """How the processes of a run exchange gradients: DDP, in buckets while backward goes on.

    Gradients live in the buckets, which spares a copy of all of them in memory and a pass over it.
    """
    return DDPStrategy(gradient_as_bucket_view=True) if world_size > 1 else "auto"


def _leave_process_group() -> None:
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def on_first_rank(fabric: Fabric, check: Callable[[], None]) -> None:
    """Let the first rank alone check something.

    Raises:
        MidwayError: On every rank, what the check raised on the first.

    """
    problem = None
    if fabric.is_global_zero:
        try:
            check()
        except MidwayError as error:
            problem = str(error)
    if problem := fabric.broadcast(problem):
        raise MidwayError(problem)
