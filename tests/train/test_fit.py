import json
import signal
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from midway.errors import MidwayError
from midway.train.checkpoint import latest_checkpoint
from midway.train.objective import Progress, StepOutput
from midway.train.optim import OptimConfig

from .toy import CONFIG, OPTIM, Toy, ToyLoader, losses, run_config, train


def model_of(folder: Path) -> dict[str, torch.Tensor]:
    path = latest_checkpoint(folder)
    assert path is not None
    return torch.load(path, weights_only=True)["model"]


def test_a_run_learns_and_leaves_all_that_is_needed_to_resume_it(tmp_path):
    folder = tmp_path / "run"
    summary = train(run_config(folder, steps=60, checkpoint_every=25), toy=Toy(0))
    assert (summary.steps, summary.skipped_steps, summary.interrupted) == (60, 0, False)
    names = sorted(p.name for p in (folder / "checkpoints").iterdir())
    assert names == ["step_00000050.ckpt", "step_00000060.ckpt"]
    assert summary.checkpoint == folder / "checkpoints" / "step_00000060.ckpt"
    assert json.loads((folder / "config.json").read_text()) == CONFIG
    environment = json.loads((folder / "environment.json").read_text())
    assert environment["torch"] == torch.__version__
    assert environment["lightning-fabric"] == version("lightning-fabric")
    assert list(folder.glob("events.out.tfevents.*"))
    curve = [loss for _, loss, _ in losses(folder)]
    assert sum(curve[-5:]) < 0.5 * sum(curve[:5])


def test_every_line_of_the_log_has_rates_norms_and_speeds(tmp_path):
    train(run_config(tmp_path, log_every=4))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    records = [json.loads(line) for line in lines]
    assert [record["step"] for record in records] == [1, 4, 8, 10]
    last = records[-1]
    assert (last["epoch"], last["progress"], last["skipped_steps"]) == (2.5, 1.0, 0)
    assert last["lr"] < records[1]["lr"] <= OPTIM.lr
    assert records[0]["weight_decay"] < last["weight_decay"] < OPTIM.final_weight_decay
    assert last["grad_norm"] > 0
    assert 0 <= last["data_wait_share"] <= 1
    assert last["tflops_per_second"] == pytest.approx(last["samples_per_second"] * 1e-3)
    assert "mfu" not in last  # of a CPU no peak is known
    assert last["seconds"] > records[0]["seconds"] > 0


@pytest.mark.parametrize("stop_after", [3, 5, 8])
def test_interrupted_and_resumed_equals_uninterrupted_bit_for_bit(tmp_path, stop_after):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(run_config(whole))
    handlers = [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    first = train(run_config(parts), ToyLoader(signal_step=stop_after - 1))
    assert handlers == [signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGINT)]
    assert (first.interrupted, first.steps) == (True, stop_after)
    second = train(run_config(parts), resume=True)
    assert (second.interrupted, second.steps) == (False, 10)
    assert losses(parts) == losses(whole)
    torch.testing.assert_close(model_of(parts), model_of(whole), rtol=0, atol=0)


def test_dropout_differs_from_step_to_step_and_from_seed_to_seed(tmp_path):
    curves = []
    for seed in (0, 1):
        folder = tmp_path / str(seed)
        train(run_config(folder, seed=seed))
        curves.append(losses(folder))
    assert curves[0] != curves[1]

    draws = []

    class Drawing(Toy):
        def after_step(self, progress: Progress) -> None:
            draws.append(float(torch.rand(())))

    train(run_config(tmp_path / "draws"), toy=Drawing())
    assert len(set(draws)) == 10


def test_four_micro_batches_equal_one_big_batch(tmp_path):
    train(
        run_config(tmp_path / "big"),
        ToyLoader(batch_size=32, steps_per_epoch=4),
        toy=Toy(p_dropout=0),
    )
    train(
        run_config(tmp_path / "small", accumulate=4),
        ToyLoader(batch_size=8, steps_per_epoch=16),
        toy=Toy(p_dropout=0),
    )
    big, small = model_of(tmp_path / "big"), model_of(tmp_path / "small")
    assert (big.pop("seen"), small.pop("seen")) == (10, 40)
    torch.testing.assert_close(small, big, rtol=1e-5, atol=1e-6)
    for one, other in zip(losses(tmp_path / "small"), losses(tmp_path / "big"), strict=True):
        assert one == pytest.approx(other, rel=1e-5)


def test_the_length_of_a_run_comes_from_epochs_unless_steps_are_given(tmp_path):
    by_epochs = run_config(tmp_path / "epochs", steps=0, epochs=1.5, accumulate=2)
    assert train(by_epochs, ToyLoader(steps_per_epoch=8)).steps == 6
    assert run_config(tmp_path, steps=7, epochs=100).length(3.0) == 7


def test_steps_that_are_not_finite_are_left_out_and_counted(tmp_path):
    toy = Toy()
    seen = []

    class Watching(Toy):
        def after_step(self, progress: Progress) -> None:
            seen.append(self.student.first.weight.detach().clone())

    toy = Watching()
    summary = train(run_config(tmp_path), ToyLoader(nan_steps=(5, 6)), toy=toy)
    assert (summary.steps, summary.skipped_steps) == (10, 2)
    assert torch.equal(seen[4], seen[5])
    assert torch.equal(seen[5], seen[6])
    assert not torch.equal(seen[6], seen[7])
    curve = [loss for _, loss, _ in losses(tmp_path)]
    assert [i for i, loss in enumerate(curve) if loss is None] == [5, 6]
    resumed = train(run_config(tmp_path, steps=12), resume=True)
    assert resumed.skipped_steps == 2


def test_ten_bad_steps_in_a_row_stop_the_run_and_leave_the_last_good_checkpoint(tmp_path):
    loader = ToyLoader(nan_steps=tuple(range(5, 100)))
    # Lines of the log are rarer than that, and the end of the run is no excuse.
    for steps, noticed in ((40, 16), (15, 15)):
        folder = tmp_path / str(steps)
        message = rf"not finite {noticed - 5} steps in a row: .* at step {noticed}"
        with pytest.raises(MidwayError, match=message):
            train(run_config(folder, steps=steps, log_every=100), loader)
        path = latest_checkpoint(folder)
        assert path is not None
        assert path.name == "step_00000012.ckpt"
        assert all(bool(v.isfinite().all()) for v in model_of(folder).values())


def test_a_bad_streak_is_noticed_though_log_and_checkpoints_are_rare(tmp_path):
    run = run_config(tmp_path, steps=90, log_every=100, checkpoint_every=100)
    with pytest.raises(MidwayError, match="at step 20"):
        train(run, ToyLoader(nan_steps=tuple(range(5, 100))))


@pytest.mark.parametrize("precision", ["32-true", "16-mixed"])
def test_a_bad_step_at_the_end_or_an_interruption_is_checkpointed(tmp_path, precision):
    run = run_config(tmp_path, precision=precision)
    first = train(run, ToyLoader(nan_steps=(5, 9), signal_step=5))
    assert (first.interrupted, first.steps) == (True, 6)
    assert first.checkpoint == tmp_path / "checkpoints" / "step_00000006.ckpt"
    second = train(run, ToyLoader(nan_steps=(5, 9)), resume=True)
    assert second.checkpoint == tmp_path / "checkpoints" / "step_00000010.ckpt"


def test_a_search_for_the_loss_scale_is_no_error_but_a_bad_loss_is(tmp_path):
    class Steep(Toy):
        def forward(self, batch):
            out = super().forward(batch)
            return StepOutput(loss=out.loss * 2**10, logs=out.logs)

    run = run_config(tmp_path / "search", steps=30, precision="16-mixed")
    assert 10 < train(run, toy=Steep()).skipped_steps < 20
    nan = ToyLoader(nan_steps=tuple(range(100)))
    with pytest.raises(MidwayError, match="in a row"):
        train(run_config(tmp_path / "nan", steps=60, precision="16-mixed"), nan)


@pytest.mark.parametrize("precision", ["bf16-mixed", "16-mixed"])
def test_mixed_precision_learns_with_full_precision_weights(tmp_path, precision):
    kinds = set()

    class Watching(Toy):
        def forward(self, batch):
            kinds.add((batch.x.dtype, self.student(batch.x).dtype))
            return super().forward(batch)

    summary = train(run_config(tmp_path, steps=30, precision=precision), toy=Watching(0))
    half = torch.bfloat16 if precision == "bf16-mixed" else torch.float16
    assert kinds == {(torch.float32, half)}
    assert model_of(tmp_path)["student.first.weight"].dtype == torch.float32
    assert summary.skipped_steps < 10
    curve = [loss for _, loss, _ in losses(tmp_path)]
    assert sum(curve[-5:]) < 0.5 * sum(curve[:5])


def test_half_precision_resumes_with_its_loss_scale(tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    train(run_config(whole, precision="16-mixed"))
    train(run_config(parts, precision="16-mixed"), ToyLoader(signal_step=5))
    train(run_config(parts, precision="16-mixed"), resume=True)
    assert losses(parts) == losses(whole)


def test_the_hooks_see_gradients_and_positions(tmp_path):
    class Frozen(Toy):
        def after_backward(self, progress: Progress) -> None:
            assert self.student.last.weight.grad is not None
            if progress.epoch < 1:
                self.student.last.weight.grad = None

    toy = Frozen()
    before = toy.student.last.weight.detach().clone()
    train(run_config(tmp_path / "one", steps=4), toy=toy)
    assert torch.equal(toy.student.last.weight, before)
    toy = Frozen()
    train(run_config(tmp_path / "two", steps=5), toy=toy)
    assert not torch.equal(toy.student.last.weight, before)


def test_a_finished_run_that_is_resumed_does_nothing(tmp_path):
    train(run_config(tmp_path))
    before = losses(tmp_path)
    assert train(run_config(tmp_path), resume=True).steps == 10
    assert losses(tmp_path) == before


def test_a_run_killed_before_its_first_checkpoint_begins_again(tmp_path):
    train(run_config(tmp_path / "whole"))
    train(run_config(tmp_path / "parts"), ToyLoader(signal_step=1))
    checkpoint = latest_checkpoint(tmp_path / "parts")
    assert checkpoint is not None
    checkpoint.unlink()
    train(run_config(tmp_path / "parts"), resume=True)
    assert losses(tmp_path / "parts") == losses(tmp_path / "whole")


def test_the_events_hold_every_step_once_after_a_resume(tmp_path):
    train(run_config(tmp_path), ToyLoader(signal_step=4))
    train(run_config(tmp_path), resume=True)
    events = EventAccumulator(str(tmp_path)).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 11))


@pytest.mark.parametrize("line", ["garbage", "3", "[]", '{"loss": 1}', '{"step": "2"}'])
def test_a_line_of_the_log_that_is_no_record_is_named(tmp_path, line):
    train(run_config(tmp_path), ToyLoader(signal_step=4))
    path = tmp_path / "metrics.jsonl"
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], line, *lines[2:]]) + "\n")
    with pytest.raises(MidwayError, match=r"metrics\.jsonl: line 2 is not a record"):
        train(run_config(tmp_path), resume=True)


def test_half_a_line_at_the_end_of_the_log_is_dropped(tmp_path):
    train(run_config(tmp_path), ToyLoader(signal_step=4))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text() + '{"step": 6, "lo')
    train(run_config(tmp_path), resume=True)
    assert [step for step, _, _ in losses(tmp_path)] == list(range(1, 11))


def test_a_log_with_names_of_an_older_version_goes_on(tmp_path):
    train(run_config(tmp_path), ToyLoader(signal_step=2))
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text().replace("samples_per_second", "pairs_per_second"))
    train(run_config(tmp_path), resume=True)
    records = [json.loads(line) for line in path.read_text().splitlines()]
    assert [record["step"] for record in records] == [*range(1, 11)]
    assert ["pairs_per_second" in record for record in records] == [True] * 3 + [False] * 7


def test_a_run_ends_with_what_limited_it(tmp_path, capsys):
    train(run_config(tmp_path, steps=2))
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("limited by ")
    assert "; the run waited" in last
    assert last.endswith("for data")


def test_a_run_that_skipped_every_step_is_an_error_and_keeps_the_checkpoint_of_before(tmp_path):
    with pytest.raises(MidwayError, match="not finite in any of its 5 steps from step 0"):
        train(
            run_config(tmp_path / "new", steps=5, checkpoint_every=10),
            ToyLoader(nan_steps=(*range(5),)),
        )
    train(run_config(tmp_path / "old", steps=3))
    with pytest.raises(MidwayError, match="not finite in any of its 2 steps from step 3"):
        train(
            run_config(tmp_path / "old", steps=5, checkpoint_every=10),
            ToyLoader(nan_steps=(3, 4)),
            resume=True,
        )
    newest = latest_checkpoint(tmp_path / "old")
    assert newest is not None
    assert newest.name == "step_00000003.ckpt"


def test_a_resume_with_fewer_steps_than_done_is_refused_and_changes_nothing(tmp_path):
    train(run_config(tmp_path, steps=6))
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(
        MidwayError, match=r"run of 2 steps: .* has completed 6; give --run.steps 6"
    ):
        train(run_config(tmp_path, steps=2), resume=True)
    assert (tmp_path / "config.json").read_text() == "{}"
    assert len(losses(tmp_path)) == 6


def test_a_resume_without_a_checkpoint_says_that_it_starts_anew(tmp_path, capsys):
    train(run_config(tmp_path, steps=2))
    next(tmp_path.glob("checkpoints/*.ckpt")).unlink()
    capsys.readouterr()
    train(run_config(tmp_path, steps=2), resume=True)
    assert "has no checkpoint yet, so the run starts at step 0" in capsys.readouterr().err


def test_a_rate_that_would_rise_is_refused_at_the_first_step(tmp_path, monkeypatch):
    # The peak depends on the samples of a step, which only the loader knows.
    rising = OptimConfig(lr=1e-3, final_lr=1e-4)
    monkeypatch.setattr("tests.train.toy.OPTIM", rising)
    with pytest.raises(
        MidwayError, match=r"optim.final_lr = 0.0001: the rate would rise; .* 8 sam"
    ):
        train(run_config(tmp_path / "small"))
    train(run_config(tmp_path / "large", steps=1), ToyLoader(batch_size=32))


def test_a_warmup_longer_than_the_run_is_told(tmp_path, capsys):
    train(run_config(tmp_path / "long", steps=2))
    assert "the warm-up" not in capsys.readouterr().err
    train(run_config(tmp_path / "short", steps=1))
    assert "the warm-up of 2 steps is longer than the run of 1" in capsys.readouterr().err


def test_the_log_counts_the_passes_that_were_seen(tmp_path):
    class Uneven(ToyLoader):
        @property
        def epochs_per_step(self) -> float:
            return 8 / 20

    train(run_config(tmp_path, steps=5, accumulate=2), Uneven(steps_per_epoch=2))
    lines = (tmp_path / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["epoch"] for line in lines] == pytest.approx([0.8, 1.6, 2.4, 3.2, 4])


@pytest.mark.parametrize("resumed_at", [None, 3])
def test_before_each_step_the_objective_gets_the_progress_of_that_step(tmp_path, resumed_at):
    seen: list[tuple[int, int]] = []

    class Scheduled(Toy):
        def before_step(self, progress: Progress) -> None:
            seen.append((progress.step, progress.samples))

    if resumed_at:
        train(run_config(tmp_path, steps=resumed_at, accumulate=2))
    train(run_config(tmp_path, steps=5, accumulate=2), toy=Scheduled(), resume=bool(resumed_at))
    # Two micro-batches of 8 samples are one step.
    assert seen == [(step, 16) for step in range(resumed_at or 0, 5)]
