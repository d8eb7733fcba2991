"""The one training loop of the package."""

import random
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from midway.errors import MidwayError
from midway.nn.compilation import compile_regions, recompute_regions
from midway.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from midway.train.health import Health, Probe
from midway.train.interruption import Interruption
from midway.train.log import Log
from midway.train.meter import Meter, peak_flops
from midway.train.objective import Loader, Objective, ParameterGroup, Position, StepOutput
from midway.train.optim import AdamW, OptimConfig, Rates, clip_gradients, rates_at
from midway.train.run import AUTOCAST_TYPES, RunConfig, autocast, write_config, write_environment

MAX_SKIPPED_IN_A_ROW = 10
"""Steps that are not finite, one after the other, before a run is given up."""


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """How a run ended."""

    steps: int
    """Optimiser steps completed since its very beginning."""
    skipped_steps: int
    """Those of them that were left out because they were not finite."""
    interrupted: bool
    """Whether it was asked to stop before its end; resume it to go on."""
    checkpoint: Path | None
    """The newest checkpoint."""
    is_main: bool
    """Whether this process is the first rank, which speaks for all."""


def fit(
    objective: Objective,
    loader: Loader,
    *,
    fabric: Fabric,
    optim: OptimConfig,
    run: RunConfig,
    config: Mapping[str, Any],
    resume: bool = False,
    flops_per_sample: float | None = None,
    probe: Probe | None = None,
) -> FitSummary:
    """Train an objective to the end of its run, or until asked to stop by a signal.

    What is random inside a step is drawn from torch's global generator, seeded anew by (seed,
    rank, step); so a resumed run goes on as if it had not stopped, from anywhere in an epoch. A
    step whose loss or gradient is not finite on any rank is left out on all. That is decided on
    the device: the host reads tensors back only to log and to write checkpoints.

    Args:
        objective: What is trained, in place; its buffers and frozen copies are saved as well.
        loader: Gives the micro-batches of this rank by number.
        fabric: From `launch`.
        optim: Optimiser and schedules.
        run: Length, and the folder, which `check_run_folder` has passed.
        config: Written to ``config.json``: all that is needed to build the run again.
        resume: Go on from the newest checkpoint of the folder; if it has none, from the beginning.
        flops_per_sample: Arithmetic of one sample, forward and backward, to log TFLOP/s and MFU.
        probe: Measured with the health of the run and after the first step, and logged; given on
            all ranks or on none.

    Raises:
        MidwayError: If the checkpoint or the log is damaged or of another model, or ten steps in a
            row are not finite (noticed within ten more; no checkpoint is written then). With
            float16 they are excused while its loss scale is still above 1 and so being searched.
            Also if `run.compile` or `run.recompute` is asked for where it can do nothing.

    """
    model = fabric.setup_module(objective)
    if run.compile:
        compile_regions(objective)
    if run.recompute:
        recompute_regions(objective)
    newest = None
    if fabric.is_global_zero:
        write_config(run.folder, config)
        newest = latest_checkpoint(run.folder) if resume else None
    newest = fabric.broadcast(newest)
    groups = objective.parameter_groups()
    steps_per_epoch = loader.steps_per_epoch / run.accumulate
    training = _Training(
        fabric=fabric,
        objective=objective,
        model=model,
        groups=groups,
        optimizer=AdamW(objective, groups, optim),
        scaler=torch.amp.GradScaler(fabric.device.type, enabled=run.precision == "16-mixed"),
        optim=optim,
        run=run,
        steps=run.length(steps_per_epoch),
        steps_per_epoch=steps_per_epoch,
        meter=Meter(
            model,
            world_size=fabric.world_size,
            flops_per_sample=flops_per_sample,
            peak_flops=peak_flops(fabric.device, AUTOCAST_TYPES.get(run.precision, torch.float32)),
        ),
        health=Health(run=run, probe=probe),
    )
    start = training.load(newest) if newest else 0
    with Interruption() as interruption, training.open_log(start) as log:
        return training.loop(start, loader, interruption, log)


@dataclass(frozen=True, kw_only=True)
class _Training:
    """The parts of a training, and the loop over its steps."""

    fabric: Fabric
    objective: Objective
    model: Any
    """The objective, wrapped for its devices."""
    groups: list[ParameterGroup]
    optimizer: AdamW
    scaler: torch.amp.GradScaler
    optim: OptimConfig
    run: RunConfig
    steps: int
    steps_per_epoch: float
    meter: Meter
    health: Health

    def loop(
        self, start: int, loader: Loader, interruption: Interruption, log: Log | None
    ) -> FitSummary:
        fabric, optimizer, scaler, run = self.fabric, self.optimizer, self.scaler, self.run
        batches = iter(loader.batches(start * run.accumulate, self.steps * run.accumulate))
        step, interrupted = start, False

        while step < self.steps and not interrupted:
            torch.manual_seed(_step_seed(run.seed, fabric.global_rank, step))

            outputs, samples, batch = [], 0, None
            for micro_batch in range(run.accumulate):
                with self.meter.waiting():
                    batch = next(batches).to(fabric.device)
                is_last = micro_batch == run.accumulate - 1
                with fabric.no_backward_sync(self.model, enabled=not is_last):
                    with autocast(fabric.device, run):
                        out: StepOutput = self.model(batch)
                    fabric.backward(scaler.scale(out.loss / run.accumulate))
                outputs.append({"loss": out.loss.detach(), **out.logs})
                samples += len(batch) * fabric.world_size
            scalars = _mean(outputs)
            position = self.position(step, samples)
            self.objective.after_backward(position)

            scaler.unscale_(optimizer)
            grad_norm = clip_gradients(self.groups, self.optim)
            bad = (~torch.isfinite(scalars["loss"] + grad_norm)).float()
            rates = rates_at(position, self.optim)
            optimizer.set_rates(rates)
            optimizer.step_unless(_reduce(fabric, bad, "max"))
            scaler.update()
            optimizer.zero_grad()
            with torch.no_grad():
                self.objective.after_step(position)

            step += 1
            interrupted = interruption.requested()
            self.meter.count(samples)
            scalars |= {"grad_norm": grad_norm}
            scalars |= (health := self.health.measure(self.objective, batch, step))
            is_told = bool(health) or self.health.is_probed(step)
            if is_told or step == 1 or step % run.log_every == 0 or step == self.steps:
                self.report(log, replace(position, step=step), rates, scalars)
            is_saved = step % run.checkpoint_every == 0 or step == self.steps or interrupted
            if is_saved or step % MAX_SKIPPED_IN_A_ROW == 0:
                self.check_finite(step)
            if is_saved:
                self.save(step)

        if log:
            log.tell(self.meter.limit())
        fabric.barrier()
        return FitSummary(
            steps=step,
            skipped_steps=int(optimizer.skipped_steps),
            interrupted=step < self.steps,
            checkpoint=latest_checkpoint(run.folder),
            is_main=fabric.is_global_zero,
        )

    def position(self, step: int, samples: int) -> Position:
        return Position(
            step=step, steps=self.steps, steps_per_epoch=self.steps_per_epoch, samples=samples
        )

    def report(
        self, log: Log | None, position: Position, rates: Rates, scalars: dict[str, Tensor]
    ) -> None:
        """Log the means over ranks, which waits for the device."""
        optimizer = self.optimizer
        tensors = [*scalars.values(), optimizer.skipped_steps]
        means = _reduce(self.fabric, torch.stack([t.float() for t in tensors]), "mean")
        *numbers, skipped_steps = means.tolist()
        if log:
            values = dict(zip(scalars, numbers, strict=True))
            values |= {"lr": rates.lr, "weight_decay": rates.weight_decay}
            values |= {"skipped_steps": int(skipped_steps), **self.meter.read()}
            with self.meter.apart():
                values |= self.health.probed(position.step)
            log.write(position, values)
            self.health.warn(values, position.step)

    def check_finite(self, step: int) -> None:
        """Give the run up after too many bad steps, on all ranks alike; waits for the device."""
        in_a_row = int(self.optimizer.skipped_in_a_row)
        if in_a_row < MAX_SKIPPED_IN_A_ROW:
            return
        # float16 begins with a scale that overflows, and halves it at every bad step.
        if self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            return
        raise MidwayError(
            f"loss or gradient not finite {in_a_row} steps in a row: {self.run.folder} at step "
            f"{step}; see its metrics.jsonl, then start again with a lower --optim.lr or another "
            "--run.precision"
        )

    def open_log(self, start: int) -> AbstractContextManager[Log | None]:
        if not self.fabric.is_global_zero:
            return nullcontext()
        write_environment(self.run.folder, self.fabric.device, start_step=start)
        return Log(self.run.folder, start_step=start, steps=self.steps)

    def load(self, checkpoint: Path) -> int:
        return load_checkpoint(
            checkpoint,
            objective=self.objective,
            optimizer=self.optimizer,
            scaler=self.scaler,
        )

    def save(self, step: int) -> None:
        if self.fabric.is_global_zero:
            save_checkpoint(
                self.run.folder,
                step=step,
                objective=self.objective,
                optimizer=self.optimizer,
                scaler=self.scaler,
                keep=self.run.keep_checkpoints,
            )


def _step_seed(seed: int, rank: int, step: int) -> int:
    """Seed of torch's global generator for one step on one rank."""
    return random.Random(f"{seed} {rank} {step}").getrandbits(63)


def _mean(outputs: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    return {key: torch.stack([out[key] for out in outputs]).mean(0) for key in outputs[0]}


def _reduce(fabric: Fabric, tensor: Tensor, how: Literal["mean", "max"]) -> Tensor:
    return cast("Tensor", fabric.all_reduce(tensor, reduce_op=how))
