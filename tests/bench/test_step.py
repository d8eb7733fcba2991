"""The plain step is a true twin of ours, and the benchmark's figures hang together."""

from dataclasses import replace
from math import inf
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from midway.bench import matrix_peak as peak_module
from midway.bench import step as step_module
from midway.bench.plain.agreement import Agreement, compare
from midway.bench.plain.network import attend_written_out, encode
from midway.bench.plain.step import PlainStep
from midway.bench.step import FastStep, StepBenchmark, position
from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.experiments.synthetic import BOTH_TERMS as CONFIG
from midway.methods.midway import Midway
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.midway import NetworkConfig
from midway.train.objective import StepOutput

CPU = torch.device("cpu")


def _method(seed: int = 0, *, drop_path: float = 0.0) -> Midway:
    torch.manual_seed(seed)
    network: NetworkConfig = CONFIG.network
    network = replace(network, encoder=replace(network.encoder, drop_path=drop_path))
    method = Midway(replace(CONFIG, network=network))
    # Larger weights than the first ones, so that attention is not all but uniform.
    with torch.no_grad():
        for name, parameter in method.named_parameters():
            if not name.endswith("gain"):
                parameter += 0.05 * torch.randn_like(parameter)
    method.network.dino_loss.center.normal_()
    return method


def _clips(batch: int = 2) -> Clips:
    return example_clips(CONFIG.views.spec(), batch)


def test_both_steps_agree_in_float32_on_loss_and_every_gradient_though_drop_path_is_on() -> None:
    method = _method(drop_path=0.3)
    method.train()
    agreement = compare(method, _clips(), None)
    agreement.check()
    assert agreement.loss_difference < 1e-5
    assert agreement.gradient_difference < 1e-4
    assert method.network.encoder.training
    assert not method.network.dino_loss.logit_count


def test_in_bfloat16_ours_is_no_further_from_float32_than_rounding_takes_the_plain_one() -> None:
    agreement = compare(_method(), _clips(4), torch.bfloat16)
    agreement.check()
    assert agreement.gradient_error is not None
    assert agreement.loss_error is not None
    assert agreement.plain_gradient_error is not None
    assert 0 < agreement.gradient_error < 1.5 * agreement.plain_gradient_error
    assert agreement.loss_error < 0.01


@pytest.mark.parametrize("lost", ["a gradient", "the value of a gradient", "the loss"])
def test_a_step_that_loses_something_does_not_agree(
    monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    whole = Midway.loss
    method = _method()
    tokens = method.network.dynamics.midway_path.motion_tokens

    def loss(self: Midway, clips: Clips) -> StepOutput:
        tokens.requires_grad_(lost != "a gradient")
        value = whole(self, clips).loss
        tokens.requires_grad_(True)
        if lost == "the value of a gradient":
            nothing = 0 * tokens.sum()
            nothing.register_hook(lambda grad: grad * torch.nan)
            value = value + nothing
        return StepOutput(loss=value * (torch.nan if lost == "the loss" else 1), logs={})

    monkeypatch.setattr(Midway, "loss", loss)
    agreement = compare(method, _clips(), None)
    if lost != "the loss":
        assert agreement.worst_parameter.endswith("motion_tokens")
    with pytest.raises(MidwayError, match="disagree"):
        agreement.check()


@pytest.mark.parametrize(
    "wrong", [{"loss_error": 0.02}, {"gradient_error": inf, "plain_gradient_error": inf}]
)
def test_what_is_wrong_in_bfloat16_alone_does_not_agree(wrong: dict[str, float]) -> None:
    agreement = compare(_method(), _clips(4), torch.bfloat16)
    with pytest.raises(MidwayError, match="disagree"):
        replace(agreement, **wrong).check()


def test_a_step_that_computes_something_else_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = PlainStep.loss
    monkeypatch.setattr(PlainStep, "loss", lambda self, clips: 1.001 * whole(self, clips))
    with pytest.raises(MidwayError, match="disagree: Agreement"):
        compare(_method(), _clips(), None).check()
    bad = Agreement(loss_difference=0, gradient_difference=1e-3, worst_parameter="a")
    with pytest.raises(MidwayError, match="disagree"):
        bad.check()


def test_attention_of_the_plain_step_is_compared_as_it_is_timed() -> None:
    with pytest.raises(MidwayError, match="disagree"):
        compare(_method(), _clips(), None, attend=lambda q, k, v: v).check()


def test_the_plain_encoder_drops_branches_of_whole_samples_and_scales_the_others() -> None:
    config = EncoderConfig(
        image_size=(32, 32), patch_size=16, width=24, depth=2, heads=2, drop_path=0.5
    )
    vit = VisionTransformer(config)
    vit.norm = nn.Identity()  # pyright: ignore[reportAttributeAccessIssue]
    nn.init.zeros_(vit.blocks[1].mlp.fc2.weight)
    images = torch.randn(32, 3, 32, 32)
    before, after = encode(vit.eval(), images, (1, 2), attend_written_out)
    again, dropped = encode(vit.train(), images, (1, 2), attend_written_out)
    assert torch.equal(again, before)
    is_dropped = (dropped == before).flatten(1).all(1)
    assert 0 < is_dropped.sum() < 32
    scaled = before + 2 * (after - before)
    torch.testing.assert_close(dropped[~is_dropped], scaled[~is_dropped])


def test_both_steps_clip_alike_and_decay_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(step_module, "OPTIM", replace(step_module.OPTIM, clip_norm=1e-3))
    ours, theirs = _method(), _method()
    clips = _clips()
    fast = FastStep(ours, None)
    plain = PlainStep(theirs, lr=1e-4, clip_norm=1e-3, autocast_type=None)
    fast.step(clips)
    plain.step(clips, 1.0)
    moments = plain.optimizer.state
    for name, parameter in theirs.named_parameters():
        if not parameter.requires_grad:
            continue
        twin = ours.get_parameter(name)
        # After one step, a tenth of the clipped gradient.
        found, wanted = (x["exp_avg"] for x in (fast.optimizer.state[twin], moments[parameter]))
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-3 * wanted.norm().item())
        assert _decay(fast.optimizer, twin) == _decay(plain.optimizer, parameter)


def _decay(optimizer: torch.optim.Optimizer, parameter: Tensor) -> float:
    (group,) = (
        group
        for group in optimizer.param_groups
        if any(parameter is each for each in group["params"])
    )
    return group["weight_decay"]


def test_three_steps_of_both_end_at_the_same_weights_teacher_and_centre() -> None:
    ours, theirs = _method(), _method()
    fast = FastStep(ours, None)
    plain = PlainStep(theirs, lr=1e-4, clip_norm=3.0, autocast_type=None)
    before = ours.network.encoder.blocks[0].attn.qkv.weight.detach().clone()
    for _ in range(3):
        clips = _clips()
        fast.step(clips)
        plain.step(clips, theirs.teacher_momentum(position(clips)))
    assert (ours.network.encoder.blocks[0].attn.qkv.weight - before).abs().max() > 1e-4
    for name, value in theirs.state_dict().items():
        # Adam divides by the gradient's own size: where that is rounding alone, so is the step.
        torch.testing.assert_close(ours.state_dict()[name], value, rtol=1e-3, atol=2e-4, msg=name)


def test_speeds_shares_and_parts_hang_together() -> None:
    benchmark = StepBenchmark(
        config=CONFIG,
        batch_size=2,
        device=CPU,
        compile=False,
        recompute=False,
        repeats=1,
        tell=lambda what: None,
    )
    times = benchmark.run(None)
    assert times.pairs_per_second == pytest.approx(2 / times.seconds_per_step)
    assert times.flops_per_second == pytest.approx(times.flops_per_pair * times.pairs_per_second)
    assert times.share_of_peak > 0
    assert times.peak_memory_bytes > 2**24
    assert min(times.parts.values()) > 0
    assert {"student 224", "local crops", "teacher", "optimiser", "EMA", "views"} < set(times.parts)


def test_peak_memory_is_of_bytes_though_linux_counts_kib_and_macos_does_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    used = SimpleNamespace(ru_maxrss=3 * 2**20)
    monkeypatch.setattr(step_module.resource, "getrusage", lambda whose: used)
    monkeypatch.setattr(step_module.sys, "platform", "linux")
    assert step_module._peak_memory(CPU) == 3 * 2**30
    monkeypatch.setattr(step_module.sys, "platform", "darwin")
    assert step_module._peak_memory(CPU) == 3 * 2**20


def test_the_peak_is_the_work_of_the_largest_product_by_its_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(peak_module, "SIZES", {"cpu": (16, 64)})
    monkeypatch.setattr(peak_module, "seconds_of", lambda work, device: 0.5)
    assert peak_module.matrix_peak(CPU, torch.float32) == 2 * 64**3 / 0.5
