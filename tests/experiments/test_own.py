"""Presets for your own video: what follows the hours, and what keeps its value."""

from dataclasses import replace

import numpy as np
import pytest

from midway.data.clips.find import ClipList
from midway.data.clips.store import StoreClip
from midway.experiments.base import Experiment
from midway.experiments.own import follow_data, midway_tiny, midway_vits


def _clips(hours: float, count: int = 4) -> ClipList:
    """Return clips of equal length with a frame a second."""
    times = np.arange(round(3600 * hours / count) + 1, dtype=np.float64)
    clips = [
        StoreClip(name=str(number), location="x.lance", first_row=0, frame_seconds=times, fps=1.0)
        for number in range(count)
    ]
    return ClipList(tuple(clips), ())


def _samples(experiment: Experiment) -> int:
    run = experiment.run
    return run.steps * experiment.data.batch_size * run.accumulate


@pytest.mark.parametrize("hours", [2, 33, 800])
def test_from_two_hours_on_a_run_has_the_samples_of_the_paper(hours: float) -> None:
    experiment = follow_data(midway_vits(), _clips(hours))
    assert _samples(experiment) == 21_000_000
    assert experiment.data.batch_size == 200
    assert experiment.optim.warmup_steps == 3_500


def test_with_less_video_samples_fall_in_proportion_and_the_batch_by_the_root() -> None:
    hour = follow_data(midway_vits(), _clips(1.0))
    assert _samples(hour) == pytest.approx(10.5e6, rel=1e-3)
    assert hour.data.batch_size == 144  # 141.4, shared by eight processes
    minutes = follow_data(midway_vits(), _clips(0.1))
    assert _samples(minutes) == pytest.approx(1.05e6, rel=1e-3)
    assert minutes.data.batch_size == 104
    assert follow_data(midway_tiny(), _clips(0.001)).run.steps == 200


def test_beyond_fifty_hours_starts_are_random_and_a_clip_gives_several_samples() -> None:
    few, many = (follow_data(midway_vits(), _clips(hours)).data for hours in (49, 51))
    assert (few.starts, few.draws_per_clip) == ("every_frame", 1)
    assert (many.starts, many.draws_per_clip) == ("random", 5)


def _given(hours: float = 100, **given: object) -> Experiment:
    """Return the experiment after options such as ``run__steps=5``."""
    base = experiment = midway_vits()
    for option, value in given.items():
        part, field = option.split("__")
        changed = replace(getattr(experiment, part), **{field: value})
        experiment = replace(experiment, **{part: changed})
    fixed = {option.replace("__", ".") for option in given}
    return follow_data(experiment, _clips(hours), base=base, fixed=fixed)


def test_an_option_keeps_its_value_and_the_others_follow_it() -> None:
    assert _samples(_given(data__batch_size=64)) == pytest.approx(21e6, rel=1e-5)
    assert _given(data__batch_size=64).data.draws_per_clip == 4
    shared = _given(run__accumulate=4)
    assert (shared.data.batch_size, shared.run.steps) == (56, 93_750)
    short = _given(run__steps=3_000)
    assert (short.run.steps, short.optim.warmup_steps) == (3_000, 100)
    assert _given(run__steps=2).optim.warmup_steps == 1
    assert _given(run__steps=105_000, hours=0.1).run.steps == 105_000  # though it is the default
    assert _given(optim__warmup_epochs=1.0).optim.warmup_steps == 0
    assert _given(data__starts="every_frame").data.draws_per_clip == 1
    drawn = _given(data__starts="random", data__draws_per_clip=2, hours=1).data
    assert (drawn.starts, drawn.draws_per_clip) == ("random", 2)
    assert _given(data__num_workers=3).data.num_workers == 3


@pytest.mark.parametrize("hours", [0.1, 1, 60])
@pytest.mark.parametrize("accumulate", [1, 2, 4, 8])
@pytest.mark.parametrize("draws", [None, 2, 5])
def test_a_batch_that_is_chosen_can_be_shared_by_eight_processes(hours, accumulate, draws) -> None:
    given = {} if draws is None else {"data__starts": "random", "data__draws_per_clip": draws}
    data = _given(hours, run__accumulate=accumulate, **given).data
    assert data.batch_size % (8 * data.draws_per_clip) == 0
    assert draws in (None, data.draws_per_clip)
    if draws is None:
        assert data.batch_size * accumulate <= 1.3 * 200
        assert hours < 60 or accumulate == 4 or data.draws_per_clip > 1


def test_clips_opened_at_keyframes_give_several_samples() -> None:
    data = _given(1, data__starts="keyframes").data
    assert (data.batch_size, data.draws_per_clip) == (160, 5)


def test_a_batch_that_is_given_is_shared_by_the_processes_that_are(monkeypatch) -> None:
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        monkeypatch.delenv(name, raising=False)
    assert _given(data__batch_size=100).data.draws_per_clip == 5
    assert _given(data__batch_size=104).data.draws_per_clip == 4
    for name in ("WORLD_SIZE", "SLURM_NTASKS"):
        with monkeypatch.context() as started:
            started.setenv(name, "8")
            assert _given(data__batch_size=104).data.draws_per_clip == 1
    assert _given(data__batch_size=100, run__devices=10).data.draws_per_clip == 5
    assert _given(data__batch_size=104, run__devices=8).data.draws_per_clip == 1


def test_a_length_in_epochs_is_not_overruled_by_steps() -> None:
    experiment = _given(run__epochs=6.0)
    assert experiment.run.steps == 0
    assert experiment.run.length(1000) == 6_000
    assert (experiment.optim.warmup_steps, experiment.optim.warmup_epochs) == (0, 0.2)
