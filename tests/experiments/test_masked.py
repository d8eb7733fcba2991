"""Recipes of the masked baselines: those of their releases, for the paper's epochs."""

import pytest

from midway.experiments.base import Experiment, experiments


def _samples_per_step(experiment: Experiment) -> int:
    return experiment.data.batch_size * experiment.run.accumulate


@pytest.mark.parametrize(
    ("name", "epochs", "samples"),
    [
        ("bdd100k.mae_vits", 300, 4096),
        ("walking_tours.mae_vits", 100, 4096),
        ("bdd100k.ibot_vits", 800, 1024),
        ("walking_tours.ibot_vits", 100, 1024),
        ("bdd100k.croco_vits", 300, 250),
        ("walking_tours.croco_vits", 100, 250),
        ("bdd100k.videomae_vits", 300, 1000),
        ("walking_tours.videomae_vits", 100, 1000),
    ],
)
def test_runs_have_the_papers_epochs_and_the_releases_batch(
    name: str, epochs: int, samples: int
) -> None:
    experiment = experiments()[name]()
    assert experiment.run.epochs == epochs
    assert _samples_per_step(experiment) == samples
    assert experiment.data.starts == ("random" if name.startswith("bdd") else "every_frame")


def test_clips_keep_their_step_on_both_datasets() -> None:
    for name in ("bdd100k.videomae_vits", "walking_tours.videomae_vits"):
        assert experiments()[name]().data.gap_seconds == (4 / 30, 4 / 30)


def test_rates_and_decay_are_those_of_each_release() -> None:
    mae, ibot = (experiments()[f"bdd100k.{name}_vits"]().optim for name in ("mae", "ibot"))
    assert (mae.lr, mae.final_lr, mae.betas, mae.warmup_epochs) == (1.5e-4, 0, (0.9, 0.95), 40)
    assert (mae.weight_decay, mae.final_weight_decay, mae.clip) == (0.05, 0.05, "none")
    assert (ibot.lr, ibot.final_lr, ibot.betas, ibot.warmup_epochs) == (
        5e-4,
        1e-6,
        (0.9, 0.999),
        10,
    )
    assert (ibot.weight_decay, ibot.final_weight_decay) == (0.04, 0.4)
    assert (ibot.clip, ibot.clip_norm) == ("per_tensor", 3.0)


def test_samples_are_the_views_of_each_paper() -> None:
    mae, ibot = (experiments()[f"bdd100k.{name}_vits"]().method for name in ("mae", "ibot"))
    assert (mae.crop_area, mae.mask_ratio) == ((0.2, 1.0), 0.75)
    assert (ibot.views.num_local, ibot.views.initial_area) == (10, "frame")
    assert (ibot.views.global_area, ibot.views.local_area) == ((0.25, 1.0), (0.05, 0.25))
    assert (ibot.p_mask, ibot.mask_ratio, ibot.share_prototypes) == (0.5, (0.1, 0.5), True)
    for targets in (ibot.targets, ibot.patch_targets):
        assert (targets.initial_teacher_temperature, targets.teacher_temperature) == (0.04, 0.07)
        assert targets.temperature_warmup_epochs == 30
