"""DINO is Midway's invariance term by itself."""

import math
from dataclasses import replace

import pytest
import torch

from midway.data.views.render import example_clips
from midway.errors import MidwayError
from midway.methods.dino import Dino, DinoConfig
from midway.methods.midway import Midway, MidwayConfig
from midway.nn.losses.dino import TargetsConfig
from midway.train.objective import Progress

CONFIG = DinoConfig.tiny()
FROZEN = {"targets": TargetsConfig(center_start="zero"), "teacher_momentum": 0.9}


def _position(step: int) -> Progress:
    return Progress(step=step, steps=100, steps_per_epoch=10.0, samples=2)


@pytest.mark.parametrize("terms", ["same_and_cross", "cross"])
def test_on_the_same_weights_and_crops_it_equals_midway_without_its_dense_term(terms: str) -> None:
    torch.manual_seed(0)
    midway = Midway(replace(MidwayConfig.tiny(), dense_weight=0.0, terms=terms, **FROZEN))
    dino = Dino(replace(CONFIG, terms=terms, **FROZEN))
    shared = dino.network.state_dict().keys()
    dino.network.load_state_dict({name: midway.network.state_dict()[name] for name in shared})
    clips = example_clips(midway.spec, 2)
    for step in range(2):
        losses = []
        for method in (midway, dino):
            method.before_step(_position(step))
            losses.append(method.loss(clips).loss)
            losses[-1].backward()
            with torch.no_grad():
                for parameter in method.network.encoder.parameters():
                    parameter -= 0.1 * parameter.grad
                method.after_step(_position(step))
        assert torch.equal(*losses)
    after = midway.network.state_dict()
    assert all(torch.equal(after[name], t) for name, t in dino.network.state_dict().items())


def test_a_single_frame_has_one_frames_crops_and_no_cross_terms() -> None:
    method = Dino(replace(CONFIG, num_frames=1))
    assert method.spec.num_frames == 1
    assert {name: method.spec.num_crops(name) for name in method.spec.views} == {
        "globals": 2,
        "locals": CONFIG.views.num_local,
    }
    method.loss(example_clips(method.spec, 2)).loss.backward()
    with pytest.raises(MidwayError, match=r"method\.terms = cross: .*; give num_frames 2"):
        replace(CONFIG, num_frames=1, terms="cross")


def test_the_first_loss_is_about_the_log_of_the_prototypes() -> None:
    torch.manual_seed(0)
    method = Dino(CONFIG)
    # Targets of unrelated crops cost about log K; the spread of the student's logits adds to it.
    loss = method.loss(example_clips(method.spec, 8)).loss.item()
    assert math.log(256) - 0.1 < loss < math.log(256) + 1


def test_temperature_and_prototypes_follow_the_epochs() -> None:
    targets = TargetsConfig(teacher_temperature=0.07, temperature_warmup_epochs=4)
    method = Dino(replace(CONFIG, targets=targets, frozen_last_layer_epochs=2.0))
    layer = method.network.head.last_layer
    for step, temperature, is_frozen in ((0, 0.04, True), (20, 0.055, False), (90, 0.07, False)):
        method.before_step(_position(step))
        assert method.network.dino_loss.temperature == pytest.approx(temperature)
        for parameter in method.parameters():
            parameter.grad = torch.ones_like(parameter)
        method.after_backward(_position(step))
        assert all((p.grad is None) is is_frozen for p in layer.parameters())
        assert method.network.head.mlp[0].weight.grad is not None
