from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.methods.midway import Midway, MidwayConfig
from midway.models.weights.save import save
from midway.nn.losses.dense import normalized_mse
from midway.train.health import LOW_RANK, LOW_SPREAD
from midway.train.objective import Progress

CONFIG = MidwayConfig.tiny()


def _position(step: int, *, samples: int = 40) -> Progress:
    return Progress(step=step, steps=1000, steps_per_epoch=100.0, samples=samples)


def _clips() -> Clips:
    return example_clips(CONFIG.views.spec(), 2)


def test_the_last_layer_gets_no_gradient_in_the_first_epoch_and_then_does() -> None:
    method = Midway(CONFIG)
    layer = method.network.head.last_layer
    for step, is_frozen in ((99, True), (100, False)):
        for parameter in layer.parameters():
            parameter.grad = torch.ones_like(parameter)
        method.after_backward(_position(step))
        assert all((p.grad is None) is is_frozen for p in layer.parameters())


def test_the_teacher_follows_after_a_step_and_its_head_at_a_momentum_of_its_own() -> None:
    for own, wanted in (("as_encoder", 0.5), (0.75, 0.25)):
        method = Midway(
            replace(CONFIG, teacher_momentum=0.5, head_momentum=own, momentum_clock="steps")
        )
        teacher, head = method.network.teacher, method.network.head
        with torch.no_grad():
            method.encoders["student"].norm.bias.fill_(1.0)
            head.mlp[0].bias.fill_(1.0)
        method.after_step(_position(0))
        assert teacher.encoder.norm.bias.unique().tolist() == [0.5]
        assert teacher.head.mlp[0].bias.unique().tolist() == [wanted]


@pytest.mark.parametrize(
    ("config", "decay", "clip"),
    [
        (replace(CONFIG, dynamics_weight_decay=0.01, clip_dynamics=False), 0.01, False),
        (replace(CONFIG, dynamics_weight_decay="scheduled", clip_dynamics=True), "scheduled", True),
    ],
)
def test_the_dynamics_have_their_own_decay_and_clipping(
    config: MidwayConfig, decay: float | str, clip: bool
) -> None:
    groups = {group.name: group for group in Midway(config).parameter_groups()}
    assert groups["encoder"].weight_decay == "scheduled"
    assert groups["encoder"].clip
    assert groups["dynamics"].weight_decay == decay
    assert groups["dynamics"].clip is clip
    assert groups["dynamics/no_decay"].weight_decay == 0


def test_micro_batches_move_the_centre_and_lose_as_one_batch_does() -> None:
    torch.manual_seed(0)
    whole = Midway(CONFIG)
    parts = Midway(CONFIG)
    parts.load_state_dict(whole.state_dict())
    one, other = _clips(), _clips()
    both = Clips(
        views={name: torch.cat([view, other.views[name]], 2) for name, view in one.views.items()},
        seconds=torch.cat([one.seconds, other.seconds], 1),
        signals={},
    )
    with torch.no_grad():
        for step in range(2):
            wanted = whole.loss(both)
            found = [parts.loss(each) for each in (one, other)]
            loss = torch.stack([out.loss for out in found]).mean()
            torch.testing.assert_close(loss, wanted.loss)
            for method in (whole, parts):
                method.after_step(_position(step))
            centre = whole.network.dino_loss.center
            assert centre.any()
            torch.testing.assert_close(parts.network.dino_loss.center, centre)


@pytest.mark.parametrize(
    "change",
    [
        {"teacher_momentum": 1.1},
        {"final_teacher_momentum": float("nan")},
        {"dynamics_weight_decay": -1.0},
        {"frozen_last_layer_epochs": -1.0},
        {"dino_weight": -1.0},
        {"dense_weight": float("nan")},
        {"head_momentum": 1.1},
        {"encoder_lr_scale": float("inf")},
    ],
)
def test_a_setting_out_of_range_is_refused(change: dict) -> None:
    with pytest.raises(MidwayError, match=f"method.{next(iter(change))}"):
        replace(CONFIG, **change)


def test_the_dino_term_counts_by_its_weight_and_is_left_out_at_zero() -> None:
    torch.manual_seed(0)
    clips, state = _clips(), Midway(CONFIG).state_dict()
    outputs = {}
    for weight in (1.0, 3.0, 0.0):
        method = Midway(replace(CONFIG, dino_weight=weight))
        method.load_state_dict(state)
        outputs[weight] = method.loss(clips)
        outputs[weight].loss.backward()
        method.after_step(_position(0))
        has_gradient = [p.grad is not None for p in method.network.head.parameters()]
        assert all(has_gradient) if weight else not any(has_gradient)
        assert bool(method.network.dino_loss.center.any()) is bool(weight)
    dense, dino = (outputs[1.0].logs[f"{term}_loss"] for term in ("dense", "dino"))
    torch.testing.assert_close(outputs[3.0].loss.detach(), dense + 3 * dino)
    torch.testing.assert_close(outputs[0.0].loss.detach(), dense)
    assert "dino_loss" not in outputs[0.0].logs


def test_exchanged_latents_are_those_of_the_other_half_in_the_same_order() -> None:
    torch.manual_seed(0)
    method = Midway(replace(CONFIG, dino_weight=0.0, exchanged_latents=True))
    clips, network = _clips(), method.network
    found = method.loss(clips).logs
    source, target = clips.views["motion"][:, 0]
    losses: dict[int, list[torch.Tensor]] = {level: [] for level in network.config.dynamics.levels}
    with torch.no_grad():
        for first, second in ((source, target), (target, source)):
            left, right = (
                network(first[..., part], second[..., part]).levels
                for part in (slice(0, 32), slice(32, 64))
            )
            for level, model in network.dynamics.forward_models.items():
                for own, other in ((left, right), (right, left)):
                    # The top level only: below it, the source is the prediction of the level above.
                    wanted = own[int(level)]
                    latents = network.dynamics.raise_latents(other[int(level)].motion_latents)
                    predicted = model(wanted.source_backward, latents)[0]
                    losses[int(level)].append(normalized_mse(predicted, wanted.target))
    top = max(losses)
    torch.testing.assert_close(found[f"dense_loss_{top}"], torch.stack(losses[top]).mean())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"views": replace(CONFIG.views, motion_size=(64, 72))}, "72 pixels; give an even number"),
        (
            {
                "network": replace(
                    CONFIG.network, dynamics=replace(CONFIG.network.dynamics, latent_dynamics=False)
                )
            },
            "without latent_dynamics",
        ),
    ],
)
def test_latents_that_cannot_be_exchanged_are_refused(change: dict, message: str) -> None:
    with pytest.raises(MidwayError, match=message):
        replace(CONFIG, exchanged_latents=True, **change)


def test_the_dense_term_counts_by_its_weight_and_is_left_out_at_zero() -> None:
    torch.manual_seed(0)
    clips, state = _clips(), Midway(CONFIG).state_dict()
    outputs = {}
    for weight in (1.0, 3.0, 0.0):
        method = Midway(replace(CONFIG, dense_weight=weight))
        method.load_state_dict(state)
        outputs[weight] = method.loss(clips)
        outputs[weight].loss.backward()
        has_gradient = [p.grad is not None for p in method.network.dynamics.parameters()]
        assert all(has_gradient) if weight else not any(has_gradient)
    dense, dino = (outputs[1.0].logs[f"{term}_loss"] for term in ("dense", "dino"))
    torch.testing.assert_close(outputs[3.0].loss.detach(), dino + 3 * dense)
    torch.testing.assert_close(outputs[0.0].loss.detach(), dino)
    assert list(outputs[0.0].logs) == ["dino_loss"]
    with pytest.raises(MidwayError, match="dino_weight and dense_weight = 0; give one"):
        replace(CONFIG, dense_weight=0.0, dino_weight=0.0)


@pytest.mark.parametrize(
    ("change", "has_dense", "has_dino"),
    [({}, True, True), ({"dino_weight": 0.0}, True, False), ({"dense_weight": 0.0}, False, True)],
)
def test_health_is_that_of_the_terms_there_are(
    change: dict, has_dense: bool, has_dino: bool
) -> None:
    method = Midway(replace(CONFIG, **change)).eval()

    class Batch:
        def render(self, spec: object) -> Clips:
            return _clips()

    with torch.no_grad():
        found = method.health(Batch()) | method.starting_health(Batch())
    assert ("dense_over_copy_3" in found) is has_dense
    for name in ("dino_entropy", "dino_kl", "spread_head", "dino_rho", "dino_rho_needed"):
        assert (name in found) is has_dino


def test_a_frozen_encoder_gets_no_gradient_and_the_dynamics_do() -> None:
    frozen = replace(CONFIG, encoder_lr_scale=0.0, dino_weight=0.0)
    method = Midway(frozen)
    method.loss(_clips()).loss.backward()
    assert all(p.grad is None for p in method.encoders["student"].parameters())
    assert all(p.grad is not None for p in method.network.dynamics.parameters())
    assert not [g for g in method.parameter_groups() if g.name.startswith("encoder")]


def test_the_encoder_learns_at_its_own_rate() -> None:
    groups = Midway(replace(CONFIG, encoder_lr_scale=0.1)).parameter_groups()
    scales = {group.name.partition("/")[0]: group.lr_scale for group in groups}
    assert scales == {"encoder": 0.1, "head": 1.0, "dynamics": 1.0}


def test_weights_to_start_from_are_taken_over_whole(tmp_path: Path) -> None:
    before, after = Midway(CONFIG), Midway(CONFIG)
    save(before.network, tmp_path / "before.safetensors")
    after.start_from(str(tmp_path / "before.safetensors"))
    state = after.network.state_dict()
    assert all(torch.equal(state[name], x) for name, x in before.network.state_dict().items())


def test_weights_of_another_size_are_refused_by_name(tmp_path: Path) -> None:
    fewer = replace(CONFIG.network.dynamics, num_latents=3)
    other = Midway(replace(CONFIG, network=replace(CONFIG.network, dynamics=fewer)))
    save(other.network, tmp_path / "other.safetensors")
    with pytest.raises(MidwayError, match=r"other\.safetensors: .*motion_tokens differs"):
        Midway(CONFIG).start_from(str(tmp_path / "other.safetensors"))


def test_health_measures_the_teacher_and_compares_with_copying_the_source() -> None:
    torch.manual_seed(0)
    method = Midway(CONFIG).eval()
    source, target = torch.randn(2, 3, 3, *CONFIG.views.motion_size)
    with torch.no_grad():
        found = method.pair_health(source, target)
        outputs = method.network(source, target).levels
        levels = method.network.teacher.encoder.levels(source, (3,)), outputs[3].target
    seen, wanted = (F.normalize(x, dim=2) for x in (levels[0][0], levels[1]))
    copied = (seen - wanted).square().sum(2).mean()
    assert found["copy_loss_3"].item() == pytest.approx(copied.item(), rel=1e-5)
    share = outputs[3].loss / copied
    assert found["dense_over_copy_3"].item() == pytest.approx(share.item(), rel=1e-5)
    assert found["gate_3_2"].item() == pytest.approx(outputs[3].gates[0].mean().item())
    assert {name for name in found if name.startswith("rank")} == {"rank_1", "rank_3", "rank_4"}


def test_a_collapsed_teacher_shows_in_rank_and_spread() -> None:
    torch.manual_seed(0)
    method = Midway(CONFIG).eval()
    source, target = torch.randn(2, 3, 3, *CONFIG.views.motion_size)
    norm = method.network.teacher.encoder.norm
    with torch.no_grad():
        well = method.pair_health(source, target)
        norm.weight.mul_(1e-3)
        norm.bias.fill_(1.0)
        ill = method.pair_health(source, target)
    assert well["rank_4"] > LOW_RANK > ill["rank_4"]
    assert well["spread_4"] > LOW_SPREAD > ill["spread_4"]
