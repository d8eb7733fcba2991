"""The plan of a run: its numbers add up, its estimates follow what they are made of."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from midway.bench import trial as trial_module
from midway.bench.chips import CHIPS
from midway.bench.plan import Length, Needs, here, on_chip, plan_run
from midway.bench.step import FastStep
from midway.bench.trial import Trial
from midway.data.prepare.measure import Sampling
from midway.data.synthetic.world import WorldConfig
from midway.data.synthetic.write import write_videos
from midway.experiments import camvid
from midway.experiments.base import Experiment, find_data, sample_spec, train
from midway.methods.base import build_method

EXPERIMENTS = ("mae_tiny", "videomae_tiny", "poodle_tiny", "dora_tiny")
TRIAL = Trial(
    device="cpu",
    cores=2,
    samples=2,
    compute_seconds=0.4,
    memory_bytes=None,
    ran_out_of_memory=False,
    read_seconds=0.1,
)
LENGTH = Length(
    clips=1,
    skipped_clips=0,
    first_skipped="",
    hours=1.0,
    frames_per_sample=2,
    samples_per_epoch=100,
    samples_per_step=16,
    steps=1000,
    samples=16_000,
    epochs=160.0,
    samples_per_second_of_video=4.4,
)


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("videos")
    write_videos(folder, WorldConfig(height=64, width=96, num_frames=120), seeds=[0, 1])
    return folder


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        trial_module, "Sampling", lambda **values: Sampling(**values, timed_seconds=0.01)
    )
    monkeypatch.setattr(trial_module, "LONG_SECONDS", 0.0)  # the smallest batch only


def _experiment(name: str, videos: Path, folder: Path, **run: object) -> Experiment:
    experiment = getattr(camvid, name)()
    data = replace(experiment.data, root=str(videos), batch_size=4, num_workers=0)
    run = {"folder": folder, "steps": 3, "keep_checkpoints": 1} | run
    return replace(experiment, data=data, run=replace(experiment.run, **run))


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_methods_of_images_pairs_and_clips_have_a_plan(
    name: str, videos: Path, tmp_path: Path
) -> None:
    experiment = _experiment(name, videos, tmp_path / "run", accumulate=2)
    if name == "dora_tiny":
        experiment = replace(experiment, data=replace(experiment.data, gap_seconds=(0.5, 0.5)))
    spec = sample_spec(experiment.method)
    plan = plan_run(experiment, find_data(experiment.data, spec), spec)
    length, needs = plan.length, plan.needs
    assert (length.clips, length.samples, length.samples_per_step) == (2, 24, 8)
    assert length.epochs == pytest.approx(24 / length.samples_per_epoch)
    assert length.samples_per_second_of_video == pytest.approx(24 / (3600 * length.hours))
    assert needs.samples_per_device == 4
    assert needs.memory_bytes > needs.state_bytes > needs.checkpoint_bytes
    assert plan.here.trial.samples == 2
    assert plan.here.seconds == pytest.approx(24 / plan.here.samples_per_second)
    assert not plan.chips  # the run is for a CPU
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_is_as_large_as_planned(videos: Path, tmp_path: Path) -> None:
    experiment = _experiment("midway_tiny", videos, tmp_path / "run")
    spec = sample_spec(experiment.method)
    plan = plan_run(experiment, find_data(experiment.data, spec), spec)
    checkpoint = train(experiment).checkpoint
    assert checkpoint
    assert checkpoint.stat().st_size == pytest.approx(plan.needs.checkpoint_bytes, rel=0.05)


def test_a_clip_that_cannot_be_read_is_left_out_of_the_timing(videos: Path, tmp_path: Path) -> None:
    for path in videos.iterdir():
        content = path.read_bytes()
        (tmp_path / path.name).write_bytes(content)
    experiment = _experiment("midway_tiny", tmp_path, tmp_path / "run")
    spec = sample_spec(experiment.method)
    found = find_data(experiment.data, spec)
    (tmp_path / min(path.name for path in videos.iterdir())).write_bytes(b"")
    generous = replace(experiment, data=replace(experiment.data, max_bad_share=1.0))
    assert plan_run(generous, found, spec).here.trial.read_seconds > 0


def test_on_a_cpu_times_add_up_and_beside_a_gpu_the_longer_one_counts(tmp_path: Path) -> None:
    experiment = _experiment("midway_tiny", tmp_path, tmp_path, devices=1)
    shared = here(experiment, TRIAL, samples=100)
    assert shared.seconds == pytest.approx(100 * (0.4 + 0.1 / 2))
    assert shared.limit == "compute"
    gpu = replace(TRIAL, device="GPU", compute_seconds=0.01)
    beside = here(experiment, gpu, samples=100)
    assert beside.seconds == pytest.approx(100 * 0.1)  # one worker reads
    assert (beside.limit, beside.cores_to_read) == ("data", 10)


def test_estimates_on_gpus_follow_peak_memory_and_batch(tmp_path: Path) -> None:
    (chip,) = (each for each in CHIPS if each.name == "A100")
    experiment = _experiment("midway_tiny", tmp_path, tmp_path, precision="bf16-mixed")
    needs = Needs(
        checkpoint_bytes=10**9,
        disk_bytes=2 * 10**9,
        free_disk_bytes=10**12,
        samples_per_device=16,
        state_bytes=2 * 10**9,
        activation_bytes=10**10,
    )
    found = on_chip(chip, experiment, LENGTH, needs, flops=312e9, read_seconds=0.1)
    assert found
    assert found.samples_per_second == pytest.approx((200, 400))
    assert found.hours == pytest.approx((16_000 / 400 / 3600, 16_000 / 200 / 3600))
    assert found.cores == (20, 40)
    assert found.accumulate == 4  # 72 GB less 2 of 80 hold 7 samples of 10 GB: 4 of 16 do
    huge = replace(needs, activation_bytes=10**11)
    alone = on_chip(chip, experiment, LENGTH, huge, flops=312e9, read_seconds=0.1)
    assert alone
    assert alone.accumulate is None


def test_a_gpu_without_memory_for_a_larger_batch_is_noticed(
    videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_module, "LONG_SECONDS", 60.0)

    class Full(FastStep):
        def step(self, clips: object) -> None:
            if len(clips) > 2:  # pyright: ignore[reportArgumentType]
                raise torch.OutOfMemoryError("no memory")

    monkeypatch.setattr(trial_module, "FastStep", Full)
    experiment = _experiment("midway_tiny", videos, tmp_path)
    found = find_data(experiment.data, build_method(experiment.method).spec)
    trial = trial_module.try_out(experiment, found, announce=lambda text: None)
    assert trial.ran_out_of_memory
    assert trial.samples == 2
