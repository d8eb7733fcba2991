"""PooDLe: counts of table 9, its losses on known scenes, its teacher, and its external flow."""

from dataclasses import replace
from functools import partial

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from midway.bench.costs import costs_of
from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.experiments import bdd100k, camvid, synthetic, walking_tours
from midway.experiments.base import Experiment
from midway.methods.base import build_method
from midway.methods.poodle import Poodle, PoodleConfig
from midway.models.encoders.poodle import SpatialDecoderConfig
from midway.models.encoders.resnet import ResNetConfig
from midway.models.encoders.vit import EncoderConfig
from midway.models.flow.external import FlowConfig
from midway.models.flow.raft import Raft
from midway.models.weights.save import save
from midway.nn.ema import update_ema
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD
from midway.nn.subcrops import SubcropConfig
from midway.train.objective import Progress

NO_FLOW = replace(PoodleConfig.tiny(), flow=FlowConfig(source="none"))


def clips_of(method: Poodle, batch: int = 2) -> Clips:
    return example_clips(method.spec, batch, generator=torch.Generator().manual_seed(0))


def test_multiply_adds_and_parameters_are_those_of_table_9():
    encoders = costs_of(PoodleConfig(flow=FlowConfig(source="none"))).multiply_adds / 1e9
    raft, mask = _raft_giga_multiply_adds()
    # The sheet's assumptions: 224 pixels, 6 subcrops of 192 in both directions, RAFT in one
    # direction, which upsamples after each of its 24 iterations. Ours upsamples once, both ways.
    assert encoders + raft + 23 * mask == pytest.approx(199.9, rel=0.001)
    assert encoders + raft + 23 * mask == pytest.approx(202.3, rel=0.015)
    with torch.device("meta"):
        method = build_method(PoodleConfig())
    encoder = method.encoders["student_decoder"]
    counts = [sum(p.numel() for p in part.parameters()) / 1e6 for part in encoder.children()]
    assert counts[0] == pytest.approx(23.5, rel=0.01)
    assert sum(counts[1:]) == pytest.approx(12.1, rel=0.01)


def _raft_giga_multiply_adds() -> tuple[float, float]:
    """Return the cost of 24 iterations in one direction, and that of one upsampling mask."""

    def cost(call) -> float:
        with FlopCounterMode(display=False) as counter:
            call()
        return counter.get_total_flops() / 2e9

    with torch.device("meta"):
        image, hidden = torch.rand(1, 3, 224, 224), torch.rand(1, 128, 28, 28)
        # All iterations cost the same.
        one, two = (cost(partial(Raft(iterations=n), image, image)) for n in (1, 2))
        mask = cost(partial(Raft().mask_predictor, hidden))
    return one + 23 * (two - one), mask


def test_both_losses_start_near_2_and_are_those_of_random_directions():
    torch.manual_seed(0)
    method = Poodle(NO_FLOW)
    logs = method.loss(clips_of(method, 8)).logs
    # The teacher is a copy, but without the predictor, so that directions have nothing in common.
    assert 1.5 < logs["dense_loss"] < 2.5
    assert 1.5 < logs["pooled_loss"] < 2.5
    assert 0.5 < logs["visible_share"] < 1


def test_the_loss_is_the_weighted_sum():
    def loss(weight: float) -> torch.Tensor:
        torch.manual_seed(0)
        method = Poodle(replace(NO_FLOW, dense_weight=weight))
        out = method.loss(clips_of(method))
        expected = weight * out.logs["dense_loss"] + (1 - weight) * out.logs["pooled_loss"]
        torch.testing.assert_close(out.loss.detach(), expected)
        return out.loss.detach()

    assert loss(1.0) != loss(0.0)


def test_the_teacher_follows_the_student_but_not_its_running_statistics():
    torch.manual_seed(0)
    method = Poodle(replace(NO_FLOW, teacher_momentum=0.5))
    clips = clips_of(method)
    out = method.loss(clips)
    out.loss.backward()
    assert all(p.grad is None for p in method.teacher.parameters())
    with torch.no_grad():
        for parameter in method.student.parameters():
            parameter.add_(1.0)
        expected = [p.clone() for p in method.teacher.parameters()]
        update_ema(expected, list(method.student.parameters()), 0.5)
        statistics = {n: b.clone() for n, b in method.teacher.named_buffers()}
        method.after_step(Progress(step=0, steps=10, steps_per_epoch=5.0, samples=2))
    assert all(map(torch.equal, method.teacher.parameters(), expected))
    # They moved in the forward pass, by the teacher's own batches.
    assert all(torch.equal(b, statistics[n]) for n, b in method.teacher.named_buffers())
    means = [
        dict(part.named_buffers())["encoder.backbone.bn1.running_mean"]
        for part in (method.student, method.teacher)
    ]
    assert means[0].abs().max() > 0
    assert not torch.equal(*means)
    # At the end of a run the teacher stands still.
    with torch.no_grad():
        method.after_step(Progress(step=10, steps=10, steps_per_epoch=5.0, samples=2))
    assert all(map(torch.equal, method.teacher.parameters(), expected))


def test_flow_is_computed_from_plain_colours_and_its_network_is_no_part(tmp_path):
    torch.manual_seed(0)
    torch.save(Raft().state_dict(), tmp_path / "raft.pth")
    flow = FlowConfig(weights=str(tmp_path / "raft.pth"), iterations=1)
    method = Poodle(replace(NO_FLOW, flow=flow))
    assert not any("flow" in name or "raft" in name for name in method.state_dict())
    assert not any(isinstance(part, Raft) for part in method.modules())
    seen = []
    source = method.flow

    def watched(frames, *, seconds, signals):
        seen.append(frames)
        return source(frames, seconds=seconds, signals=signals)

    method.flow = watched
    clips = clips_of(method)
    assert method.loss(clips).loss.isfinite()
    mean, std = (torch.tensor(x)[:, None, None] for x in (IMAGENET_MEAN, IMAGENET_STD))
    torch.testing.assert_close(seen[0], clips.views["plain"][:, 0] * std + mean)
    # Frames in training mode leave the frozen network as it is.
    method.train()
    assert not any(part.training for part in source.network.modules())


def test_recorded_flow_is_declared_as_signals_of_whole_frames():
    flow = FlowConfig(source="recorded", recorded_size=(16, 24))
    with pytest.raises(MidwayError, match="recorded flow is of whole frames; give 1 1"):
        replace(NO_FLOW, flow=flow)
    method = Poodle(replace(NO_FLOW, flow=flow, frame_area=(1.0, 1.0)))
    assert method.spec.signals["flow"] == (2, 2, 16, 24)
    assert method.spec.regions["frame"].box is None
    clips = clips_of(method)
    out = method.loss(clips)
    # The random signals of the example span other times than its frames.
    assert out.logs["visible_share"] == 0
    still = {"flow": torch.zeros_like(clips.signals["flow"]), "flow_seconds": torch.ones(2, 2)}
    out = method.loss(replace(clips, signals=still))
    assert out.logs["visible_share"] > 0.5


def test_a_vit_can_be_the_backbone():
    vit = EncoderConfig(image_size=(64, 64), patch_size=16, width=32, depth=3, heads=2)
    encoder = SpatialDecoderConfig(backbone="vit", vit=vit, laterals=(2,))
    method = Poodle(replace(NO_FLOW, encoder=encoder))
    out = method.loss(clips_of(method))
    out.loss.backward()
    assert not [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]


def test_a_run_starts_from_a_backbone_and_its_decoder_stays_fresh(tmp_path):
    torch.manual_seed(0)
    first, second = Poodle(NO_FLOW), Poodle(NO_FLOW)
    save(first.encoders["teacher"], tmp_path / "backbone.safetensors")
    fresh = second.student.encoder.laterals[0].weight.clone()
    second.start_from(str(tmp_path / "backbone.safetensors"))
    for part in (second.student, second.teacher):
        for ours, wanted in zip(
            part.encoder.backbone.state_dict().values(),
            first.teacher.encoder.backbone.state_dict().values(),
            strict=True,
        ):
            assert torch.equal(ours, wanted)
    assert torch.equal(second.student.encoder.laterals[0].weight, fresh)


PRESETS = (
    bdd100k.poodle_r50,
    bdd100k.poodle_r50_released,
    walking_tours.poodle_r50,
    synthetic.poodle_tiny,
    camvid.poodle_tiny,
)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_builds_and_has_the_recipe(preset):
    experiment: Experiment = preset()
    with torch.device("meta"):
        method = build_method(experiment.method)
    assert isinstance(method, Poodle)
    assert not experiment.optim.scale_lr
    assert experiment.optim.clip == "none"
    assert experiment.optim.weight_decay == experiment.optim.final_weight_decay == 0.01
    height, width = method.config.size
    assert method.spec.views["plain"].size == (height, width)
    assert method.spec.views["distorted"].photometric[0].jitter == (0.8, 0.8, 0.8, 0.2)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"dense_weight": 1.5}, "dense_weight = 1.5; give 0 to 1"),
        ({"teacher_momentum": -1.0}, "teacher_momentum"),
        ({"frame_area": (0.5, 0.2)}, "give 0 < low <= high <= 1"),
        ({"loss_stride": 0}, "loss_stride = 0"),
        ({"hidden": 0}, "hidden and projection"),
        ({"subcrops": SubcropConfig(count=40)}, "exceeds the 9 cells of an image"),
    ],
)
def test_a_bad_configuration_is_refused(fields, message):
    with pytest.raises(MidwayError, match=message):
        replace(PoodleConfig(), **fields)


def test_the_default_decoder_is_that_of_table_9_and_tiny_is_small():
    assert PoodleConfig().encoder == SpatialDecoderConfig(factor=1.0)
    assert PoodleConfig.tiny().encoder.resnet == ResNetConfig(blocks=(1, 1, 1, 1), width=16)
