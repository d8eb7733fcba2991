"""The training loop of the package, for pretraining and readouts alike."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, Self, cast

import torch
from lightning_fabric import Fabric
from torch import Tensor

from midway.errors import DivergedError, MidwayError, counted
from midway.models.weights.files import step_of
from midway.nn.compilation import compile_regions, recompute_regions
from midway.train.checkpoint import latest_checkpoint, load_checkpoint, save_checkpoint
from midway.train.health import Health, Probe
from midway.train.launch import Interruption, StoppedWaitingError
from midway.train.log import Log
from midway.train.meter import Meter, peak_flops
from midway.train.objective import Loader, Objective, ParameterGroup, Progress, StepOutput
from midway.train.optim import (
    AdamW,
    OptimConfig,
    Rates,
    check_falling,
    clip_gradients,
    rates_at,
    warmup_length,
)
from midway.train.run import (
    AUTOCAST_TYPES,
    RunConfig,
    autocast,
    step_seed,
    write_config,
    write_environment,
)

MAX_SKIPPED_IN_A_ROW = 10
"""Consecutive steps with a non-finite loss or gradient after which a run is aborted."""


@dataclass(frozen=True, kw_only=True)
class FitSummary:
    """Outcome of a run."""

    steps: int
    """Optimiser steps completed since the start of the run, resumes included."""
    skipped_steps: int
    """Steps among them that were skipped because they were not finite."""
    interrupted: bool
    """True if a signal stopped the run before its end; resume it to continue."""
    checkpoint: Path | None
    """Newest checkpoint."""
    is_main: bool
    """True on the first rank, which prints and writes for all."""


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
    """Train an objective until the end of its run or until a signal.

    Before each step torch's global generator is seeded by (seed, rank, step), so that a resumed run
    continues as an uninterrupted one. A step that is not finite on any rank is skipped on all.

    Args:
        objective: Trained in place; checkpoints contain its buffers and frozen copies too.
        loader: Micro-batches of this rank, by number.
        fabric: From `launch`.
        optim: Optimiser and schedules.
        run: Length and folder; the folder has passed `check_run_folder`.
        config: Full configuration of the run, written to ``config.json``.
        resume: Continue from the newest checkpoint of the folder, if there is one.
        flops_per_sample: Forward and backward; needed to log TFLOP/s and MFU.
        probe: Logged with the health metrics; pass it on all ranks or on none.

    Raises:
        MidwayError: The checkpoint or the log is damaged or of another model; `run.compile` or
            `run.recompute` has nothing to apply to; the learning rate would rise; or ten steps in
            a row are not finite (see `_Training.check_finite`).

    """
    training = _Training.build(
        objective,
        fabric=fabric,
        optim=optim,
        run=run,
        steps_per_epoch=loader.steps_per_epoch / run.accumulate,
        flops_per_sample=flops_per_sample,
        health=Health(run=run, probe=probe),
    )
    check_falling(optim, loader.samples_per_step * run.accumulate)
    start = training.resume() if resume else 0
    # Only now, so that a refused resume leaves the folder as it was.
    if fabric.is_global_zero:
        write_config(run.folder, config)
    with Interruption() as interruption, training.open_log(start, loader) as log:
        if log and resume and not start:
            log.print(f"{run.folder}: has no checkpoint yet, so the run starts at step 0")
        try:
            return training.loop(start, loader, interruption, log)
        except StoppedWaitingError as stopped:
            if stopped.step > start:
                training.checkpoint(stopped.step, start=start, interrupted=True)
            return training.finish(stopped.step, log)


@dataclass(frozen=True, kw_only=True)
class _Training:
    """Parts of a training run, and the loop over its steps."""

    fabric: Fabric
    objective: Objective
    model: Any
    """The objective, wrapped by Fabric for its devices."""
    groups: list[ParameterGroup]
    optimizer: AdamW
    scaler: torch.amp.GradScaler
    optim: OptimConfig
    run: RunConfig
    steps: int
    steps_per_epoch: float
    meter: Meter
    health: Health

    @classmethod
    def build(
        cls,
        objective: Objective,
        *,
        fabric: Fabric,
        optim: OptimConfig,
        run: RunConfig,
        steps_per_epoch: float,
        flops_per_sample: float | None,
        health: Health,
    ) -> Self:
        """Wrap the objective, and build its optimiser and meters."""
        model = fabric.setup_module(objective)
        if run.compile:
            compile_regions(objective)
        if run.recompute:
            recompute_regions(objective)
        groups = objective.parameter_groups()
        dtype = AUTOCAST_TYPES.get(run.precision, torch.float32)
        return cls(
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
                peak_flops=peak_flops(fabric.device, dtype),
            ),
            health=health,
        )

    def loop(
        self, start: int, loader: Loader, interruption: Interruption, log: Log | None
    ) -> FitSummary:
        """Train from step `start` to the end; the host reads tensors only to log and to save."""
        fabric, optimizer, scaler, run = self.fabric, self.optimizer, self.scaler, self.run
        batches = iter(loader.batches(start * run.accumulate, self.steps * run.accumulate))
        step, interrupted = start, False

        while step < self.steps and not interrupted:
            torch.manual_seed(step_seed(run.seed, fabric.global_rank, step))

            # Forward and backward: accumulate the gradients of the micro-batches.
            progress = self.progress(step, loader.samples_per_step * run.accumulate)
            self.objective.before_step(progress)
            outputs, batch = [], None
            for micro_batch in range(run.accumulate):
                with self.meter.waiting(), interruption.waiting(step, enabled=not micro_batch):
                    batch = next(batches).to(fabric.device)
                is_last = micro_batch == run.accumulate - 1
                # DDP exchanges gradients in the last backward pass only.
                with fabric.no_backward_sync(self.model, enabled=not is_last):
                    with autocast(fabric.device, run):
                        out: StepOutput = self.model(batch)
                    fabric.backward(scaler.scale(out.loss / run.accumulate))
                outputs.append({"loss": out.loss.detach(), **out.logs})
            scalars = {
                key: torch.stack([out[key] for out in outputs]).mean(0) for key in outputs[0]
            }
            self.objective.after_backward(progress)

            # Update, unless the step is not finite; the device decides, so the host never waits.
            scaler.unscale_(optimizer)
            scalars["grad_norm"] = clip_gradients(self.groups, self.optim)
            bad = (~torch.isfinite(scalars["loss"] + scalars["grad_norm"])).float()
            rates = rates_at(progress, self.optim)
            optimizer.set_rates(rates)
            optimizer.step_unless(_reduce(fabric, bad, "max"))
            scaler.update()
            optimizer.zero_grad()
            with torch.no_grad():
                self.objective.after_step(progress)

            # Measure, log and save.
            step += 1
            interrupted = interruption.requested()
            self.meter.count(progress.samples)
            health = self.health.measure(self.objective, batch, step)
            if health or self.is_logged(step):
                self.report(log, replace(progress, step=step), rates, scalars | health)
                if log:
                    with self.meter.apart():
                        log.show(step, self.health.draw(self.objective, batch, step))
            elif log:
                log.advance(step)
            self.checkpoint(step, start=start, interrupted=interrupted)

        return self.finish(step, log)

    def progress(self, step: int, samples: int) -> Progress:
        return Progress(
            step=step, steps=self.steps, steps_per_epoch=self.steps_per_epoch, samples=samples
        )

    def is_logged(self, step: int) -> bool:
        is_due = step == 1 or step % self.run.log_every == 0 or step == self.steps
        return is_due or self.health.is_probed(step)

    def report(
        self, log: Log | None, progress: Progress, rates: Rates, scalars: dict[str, Tensor]
    ) -> None:
        """Log the means over ranks; waits for the device."""
        # One reduction and one transfer to the host for all numbers.
        tensors = [*scalars.values(), self.optimizer.skipped_steps]
        means = _reduce(self.fabric, torch.stack([t.float() for t in tensors]), "mean")
        *numbers, skipped_steps = means.tolist()
        if log:
            values = dict(zip(scalars, numbers, strict=True))
            values |= {"lr": rates.lr, "weight_decay": rates.weight_decay}
            values |= {"skipped_steps": int(skipped_steps), **self.meter.read()}
            with self.meter.apart():
                values |= self.health.probed(progress.step)
            log.write(progress, values)
            self.health.warn(values, progress.step)

    def checkpoint(self, step: int, *, start: int, interrupted: bool) -> None:
        """Save every `checkpoint_every` steps, at the end and on an interruption."""
        is_saved = step % self.run.checkpoint_every == 0 or step == self.steps or interrupted
        # Checked before saving, so that no checkpoint of a diverged run replaces a good one.
        if is_saved or step % MAX_SKIPPED_IN_A_ROW == 0:
            self.check_finite(step, start)
        if is_saved and self.fabric.is_global_zero:
            save_checkpoint(
                self.run.folder,
                step=step,
                objective=self.objective,
                optimizer=self.optimizer,
                scaler=self.scaler,
                keep=self.run.keep_checkpoints,
            )

    def check_finite(self, step: int, start: int) -> None:
        """Abort the run on all ranks if too many steps, or all, were skipped.

        The check waits for the device. It runs every ten steps, so the error comes at most ten
        steps late. With float16, skipped steps are accepted while the loss scale is above 1.
        """
        in_a_row = int(self.optimizer.skipped_in_a_row)
        if step == self.steps and in_a_row == step - start:
            raise DivergedError(
                f"{self.run.folder}: loss or gradient not finite in any of its "
                f"{counted(in_a_row, 'step')} from step {start}, so nothing was learnt; "
                "check the weights it starts from, or lower --optim.lr"
            )
        if in_a_row < MAX_SKIPPED_IN_A_ROW:
            return
        # float16 starts with a loss scale that overflows, and halves it at every skipped step.
        if self.scaler.is_enabled() and self.scaler.get_scale() > 1:
            return
        raise DivergedError(
            f"loss or gradient not finite {in_a_row} steps in a row: {self.run.folder} at step "
            f"{step}; see its metrics.jsonl, then start again with a lower --optim.lr or another "
            "--run.precision"
        )

    def finish(self, step: int, log: Log | None) -> FitSummary:
        if log:
            log.print(self.meter.limit())
        # The first rank may still be writing the checkpoint that the summary names.
        self.fabric.barrier()
        return FitSummary(
            steps=step,
            skipped_steps=int(self.optimizer.skipped_steps),
            interrupted=step < self.steps,
            checkpoint=latest_checkpoint(self.run.folder),
            is_main=self.fabric.is_global_zero,
        )

    def open_log(self, start: int, loader: Loader) -> AbstractContextManager[Log | None]:
        if not self.fabric.is_global_zero:
            return nullcontext()
        write_environment(self.run.folder, self.fabric.device, start_step=start)
        log = Log(
            self.run.folder,
            start_step=start,
            steps=self.steps,
            epochs_per_step=loader.epochs_per_step * self.run.accumulate,
        )
        warmup = warmup_length(self.optim, self.steps_per_epoch)
        if warmup > self.steps:
            log.print(
                f"the warm-up of {counted(warmup, 'step')} is longer than the run of {self.steps}, "
                "so the learning rate stays below its peak; see --optim.warmup-steps"
            )
        return log

    def resume(self) -> int:
        """Load the newest checkpoint of the folder, and return its steps; 0 if there is none."""
        newest = latest_checkpoint(self.run.folder) if self.fabric.is_global_zero else None
        # Ranks on other machines may not see the folder yet: the first one decides.
        newest = self.fabric.broadcast(newest)
        if newest is None:
            return 0
        if (done := step_of(newest)) > self.steps:
            raise MidwayError(
                f"run of {counted(self.steps, 'step')}: {self.run.folder} has completed {done}; "
                f"give --run.steps {done} or more, or start a new run"
            )
        return load_checkpoint(
            newest, objective=self.objective, optimizer=self.optimizer, scaler=self.scaler
        )


def _reduce(fabric: Fabric, tensor: Tensor, how: Literal["mean", "max"]) -> Tensor:
    return cast("Tensor", fabric.all_reduce(tensor, reduce_op=how))
