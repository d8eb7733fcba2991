"""Schedules of an EMA teacher, and the health of the invariance term."""

import math

import pytest
import torch

from midway.data.views.pair_crops import MultiCropConfig
from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.models.dino import DinoNetwork, HeadConfig
from midway.models.encoders.vit import EncoderConfig
from midway.train.distillation import (
    TeacherConfig,
    few,
    invariance_condition,
    invariance_health,
    invariance_term,
)
from midway.train.objective import Progress

ENCODER = EncoderConfig(
    image_size=(16, 16), patch_size=8, width=12, depth=2, heads=2, drop_path=0, init_std=0.3
)
HEAD = HeadConfig(hidden=32, bottleneck=16, num_prototypes=64, init_std=0.3)
CROPS = MultiCropConfig(global_size=(16, 16), local_size=(8, 8), num_local=3)


def _position(step: int, *, samples: int = 40) -> Progress:
    return Progress(step=step, steps=1000, steps_per_epoch=100.0, samples=samples)


@pytest.fixture
def network() -> DinoNetwork:
    torch.manual_seed(0)
    return DinoNetwork(ENCODER, HEAD).eval()


def _clips(frames: int = 2, batch: int = 4) -> Clips:
    return example_clips(CROPS.spec(frames), batch)


def test_the_momentum_reaches_its_end_by_steps_and_a_fortieth_of_it_by_samples() -> None:
    by_steps = TeacherConfig(momentum_clock="steps")
    assert by_steps.momenta(_position(1000)) == pytest.approx((1.0, 1.0))
    # The published run, 2 x 20 pairs a step, ended at 0.996006.
    by_samples = TeacherConfig().momenta(_position(1000))
    assert by_samples == pytest.approx((0.996006, 0.996006), abs=1e-6)


def test_the_head_has_a_momentum_of_its_own_that_ends_where_the_encoders_does() -> None:
    config = TeacherConfig(teacher_momentum=0.9, head_momentum=0.99, momentum_clock="steps")
    assert config.momenta(_position(0)) == pytest.approx((0.9, 0.99))
    assert config.momenta(_position(500)) == pytest.approx((0.95, 0.995))
    assert config.momenta(_position(1000)) == pytest.approx((1.0, 1.0))


def test_the_prototypes_are_frozen_for_the_first_epochs() -> None:
    config = TeacherConfig(frozen_last_layer_epochs=1.0)
    assert [config.freezes_last_layer(_position(step)) for step in (0, 99, 100)] == [1, 1, 0]


@pytest.mark.parametrize(
    "change",
    [{"teacher_momentum": 1.1}, {"head_momentum": -0.1}, {"frozen_last_layer_epochs": math.inf}],
)
def test_a_setting_out_of_range_is_refused(change: dict) -> None:
    with pytest.raises(MidwayError, match=rf"method\.{next(iter(change))} = .*; give"):
        TeacherConfig(**change)


@torch.no_grad()
@pytest.mark.parametrize(
    ("frames", "terms"), [(2, "same_and_cross"), (2, "cross"), (1, "same_and_cross")]
)
def test_entropy_and_divergence_add_up_to_the_loss(
    network: DinoNetwork, frames: int, terms: str
) -> None:
    clips = _clips(frames)
    loss = invariance_term(network, clips, terms)
    found = invariance_health(network, clips, terms)
    parts = found["dino_entropy"] * math.log(64) + found["dino_kl"]
    torch.testing.assert_close(parts, loss)
    assert 0 < found["dino_entropy"] < 1
    assert found["dino_kl"] > 0
    # Logits were collected by the loss only.
    assert network.dino_loss.logit_count == 2 * frames * 4


@torch.no_grad()
def test_the_correlation_is_that_of_two_crops_by_hand(network: DinoNetwork) -> None:
    clips = _clips()
    found = invariance_condition(network, clips, "cross")
    crops = clips.views["globals"].flatten(0, 2)
    outputs = network.teacher.head.project(network.teacher.encoder(crops)).unflatten(0, (4, 4))
    centred = outputs - outputs.mean((0, 1))
    by_hand = [(centred[q] * centred[v]).sum(1).mean() for q in (0, 1) for v in (2, 3)]
    wanted = torch.stack(by_hand).mean() / centred.square().sum(2).mean()
    torch.testing.assert_close(found["dino_rho"], wanted)
    assert found["dino_rho_needed"].item() == pytest.approx(0.4)


@torch.no_grad()
def test_equal_crops_correlate_fully_and_a_single_sample_not_at_all(network: DinoNetwork) -> None:
    crop = torch.randn(1, 1, 4, 3, 16, 16)
    views = {"globals": crop.expand(2, 2, -1, -1, -1, -1)}
    clips = Clips(views=views, seconds=torch.zeros(2, 4), signals={})
    assert invariance_condition(network, clips, "same_and_cross")["dino_rho"].item() == (
        pytest.approx(1, abs=1e-4)
    )
    single = invariance_condition(network, few(clips, 1), "same_and_cross")
    assert single["dino_rho"].isnan()


@torch.no_grad()
def test_a_collapsed_head_shows_in_spread_and_entropy(network: DinoNetwork) -> None:
    clips = _clips()
    well = invariance_health(network, clips, "same_and_cross")
    last = network.teacher.head.mlp[-1]
    last.weight.mul_(1e-3)
    last.bias.fill_(1.0)
    ill = invariance_health(network, clips, "same_and_cross")
    assert well["spread_head"] > 0.01 > ill["spread_head"]
    # Once the centre has followed, nothing is left of the logits.
    teacher = network.teacher.head(network.teacher.encoder(clips.views["globals"].flatten(0, 2)))
    network.dino_loss.center.copy_(teacher.mean(0))
    centred = invariance_health(network, clips, "same_and_cross")
    assert centred["dino_entropy"] > 0.999 > well["dino_entropy"]
