"""DynaMo: each term against a slow form of it, and causality of the predictions."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.methods.dynamo import Dynamo, DynamoConfig, covariance_penalty, prediction_error
from midway.models.dino import HeadConfig
from midway.models.encoders.vit import EncoderConfig
from midway.nn.causal import CausalConfig
from midway.train.distillation import invariance_term

ENCODER = EncoderConfig(
    image_size=(32, 32), patch_size=8, width=24, depth=2, heads=3, drop_path=0.0, init_std=0.2
)
PAIRS = DynamoConfig(
    encoder=ENCODER,
    head=HeadConfig(hidden=16, bottleneck=8, num_prototypes=12),
    views=replace(
        DynamoConfig.tiny().views, motion_size=(32, 32), global_size=(32, 32), local_size=(16, 16)
    ),
    dynamics=CausalConfig(width=12, depth=1, heads=2),
    latent_width=4,
)
WINDOWS = replace(PAIRS, num_frames=5, dino_weight=0.0, target="student")


def _build(config: DynamoConfig) -> tuple[Dynamo, Clips]:
    torch.manual_seed(0)
    method = Dynamo(config)
    # The teacher has moved away from the student, so that it matters which one is the target.
    for parameter in method.network.teacher.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    return method, example_clips(method.spec, 3, generator=torch.Generator().manual_seed(1))


def _slow_dynamics(method: Dynamo, clips: Clips, *, target: str) -> Tensor:
    """The sheet's section 8, one sample and one step after another."""
    network, terms = method.network, []
    images = clips.views["motion"][:, 0]  # (frames, batch, 3, height, width)
    for b in range(images.shape[1]):
        own = [network.encoder(frame[None])[0] for frame in images[:, b]]
        wanted = [network.teacher.encoder(frame[None])[0] for frame in images[:, b]]
        wanted = own if target == "student" else wanted
        for t in range(len(own) - 1):
            # Prediction t of a causal network: its last output for the steps up to t.
            latents = [method.inverse(torch.stack(own[: k + 2])[None])[0, -1] for k in range(t + 1)]
            steps = [torch.cat([own[k], latents[k]]) for k in range(t + 1)]
            predicted = method.forward_dynamics(torch.stack(steps)[None])[0, -1]
            aim = wanted[t + 1].detach()
            terms.append(1 - predicted @ aim / (predicted.norm() * aim.norm()))
    return torch.stack(terms).mean()


@pytest.mark.parametrize("config", [PAIRS, WINDOWS, replace(WINDOWS, target="teacher")])
def test_the_loss_and_its_gradient_equal_those_of_a_slow_loop(config: DynamoConfig) -> None:
    method, clips = _build(config)
    ours = method.loss(clips).loss
    dynamics = _slow_dynamics(method, clips, target=config.target)
    classes = torch.cat([method.network.encoder(frame) for frame in clips.views["motion"][:, 0]])
    covariance = torch.cov(classes.T)
    off_diagonal = covariance[~torch.eye(24, dtype=torch.bool)]
    slow = dynamics + 0.04 * off_diagonal.square().mean()
    if config.dino_weight:
        slow = slow + invariance_term(method.network, clips, "same_and_cross")
    torch.testing.assert_close(ours, slow)
    trained = [p for p in method.parameters() if p.requires_grad]
    for found, wanted in zip(
        torch.autograd.grad(ours, trained), torch.autograd.grad(slow, trained), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)


def test_the_covariance_term_is_torchs_covariance_off_the_diagonal() -> None:
    features = torch.randn(20, 6, dtype=torch.float64) @ torch.randn(6, 6, dtype=torch.float64)
    covariance = torch.cov(features.T)
    wanted = sum(covariance[i, j] ** 2 for i in range(6) for j in range(6) if i != j) / 30
    torch.testing.assert_close(covariance_penalty(features), wanted.float())
    assert covariance_penalty(torch.randn(20, 1)) == 0


def test_a_later_frame_changes_no_earlier_prediction() -> None:
    method, clips = _build(WINDOWS)
    classes = torch.randn(2, 5, 24)
    with torch.no_grad():
        before = method.predict(classes)  # of the frames 1 to 4
        for frame in range(5):
            changed = classes.clone()
            changed[:, frame] += 1
            after = method.predict(changed)
            # A frame explains the change towards itself, and everything later.
            assert torch.equal(after[:, : max(frame - 1, 0)], before[:, : max(frame - 1, 0)])
            assert (after[:, max(frame - 1, 0) :] != before[:, max(frame - 1, 0) :]).any(-1).all()
    assert len(clips.views["motion"]) == 5


def test_perfect_predictions_cost_nothing_and_opposite_ones_two() -> None:
    x = torch.randn(2, 3, 6)
    torch.testing.assert_close(prediction_error(3 * x, x), torch.zeros(()), atol=1e-6, rtol=0)
    torch.testing.assert_close(prediction_error(-x, x), torch.tensor(2.0))


def test_without_the_dino_term_only_the_motion_crop_is_drawn_and_the_head_is_frozen() -> None:
    method, _ = _build(WINDOWS)
    assert set(method.spec.views) == set(method.spec.regions) == {"motion"}
    assert method.spec.num_frames == 5
    assert not any(p.requires_grad for p in method.network.head.parameters())
    assert {"motion", "globals", "locals"} == set(_build(PAIRS)[0].spec.views)


def test_the_dynamics_have_the_papers_parameters() -> None:
    with torch.device("meta"):
        method = Dynamo(DynamoConfig())
    parts = (method.inverse, method.forward_dynamics)
    size = sum(p.numel() for part in parts for p in part.parameters())
    assert size == pytest.approx(13.0e6, rel=0.01)
    encoder = sum(p.numel() for p in method.network.encoder.parameters())
    assert encoder == pytest.approx(21.7e6, rel=0.01)


def test_a_window_of_one_frame_is_refused() -> None:
    with pytest.raises(MidwayError, match="num_frames"):
        replace(PAIRS, num_frames=1)
