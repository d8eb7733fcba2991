import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.methods.ibot import Ibot, IbotConfig
from midway.models.dino import HeadConfig
from midway.nn.losses.dino import TargetsConfig
from midway.train.objective import Progress

TINY = IbotConfig.tiny()
BATCH = 3


def _position(step: int) -> Progress:
    return Progress(step=step, steps=1000, steps_per_epoch=100.0, samples=40)


def _clips(method: Ibot, batch: int = BATCH) -> Clips:
    return example_clips(method.spec, batch)


@pytest.fixture
def method() -> Ibot:
    torch.manual_seed(0)
    return Ibot(TINY)


def _masked_tokens(method: Ibot, image: Tensor, mask: Tensor) -> Tensor:
    """Tokens of one masked image, patch by patch."""
    encoder = method.network.encoder
    tokens = [encoder.cls_token[0, 0] + encoder.pos_embed[0, 0]]
    for place, patch in enumerate(encoder.patch_embed(image[None])[0]):
        content = method.mask_token[0] if mask[place] else patch
        tokens.append(content + encoder.pos_embed[0, 1 + place])
    return encoder.run_blocks(torch.stack(tokens)[None], (-1,))[0][0]


def _slow_losses(method: Ibot, clips: Clips, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Class and patch loss as BASELINES words them, image by image and token by token."""
    network, head, teacher = method.network, method.network.head, method.network.teacher
    globals_, locals_ = clips.views["globals"][0], clips.views["locals"][0]
    masks = mask.unflatten(0, (2, -1))
    class_terms, patch_terms = [], []
    for i in range(globals_.shape[1]):
        student, targets = [], []
        for crop in range(2):
            tokens = _masked_tokens(method, globals_[crop, i], masks[crop, i])
            with torch.no_grad():
                seen = teacher.encoder.levels(globals_[crop, i][None], (-1,))[0][0]
                logits = teacher.head(seen)
            targets.append(((logits[0] - network.dino_loss.center[0]) / 0.04).softmax(-1))
            student.append(head(tokens[0]))
            losses = [
                -(
                    ((logits[1 + place] - method.patch_targets.center[0]) / 0.04).softmax(-1)
                    * F.log_softmax(head(tokens[1 + place]) / 0.1, dim=-1)
                ).sum()
                for place in range(len(masks[crop, i]))
                if masks[crop, i, place]
            ]
            patch_terms.append(sum(losses, torch.zeros(())) / max(1, len(losses)))
        student += [head(network.encoder(crop[None])[0]) for crop in locals_[:, i]]
        class_terms += [
            -(targets[q] * F.log_softmax(student[v] / 0.1, dim=-1)).sum()
            for q in range(2)
            for v in range(len(student))
            if v != q
        ]
    return torch.stack(class_terms).mean(), torch.stack(patch_terms).mean()


def test_loss_and_gradients_are_those_of_a_slow_loop(method: Ibot) -> None:
    clips = _clips(method)
    method.network.dino_loss.center.normal_(std=0.1)
    method.patch_targets.center.normal_(std=0.1)
    mask = method.draw_masks(2 * BATCH)
    assert 0 < mask.any(1).sum() < 2 * BATCH
    out = method.masked_loss(clips, mask)
    class_loss, patch_loss = _slow_losses(method, clips, mask)
    torch.testing.assert_close(out.logs["class_loss"], class_loss.detach())
    torch.testing.assert_close(out.logs["patch_loss"], patch_loss.detach())
    trained = [p for p in method.parameters() if p.requires_grad]
    found = torch.autograd.grad(out.loss, trained)
    wanted = torch.autograd.grad(class_loss + patch_loss, trained)
    for ours, theirs in zip(found, wanted, strict=True):
        assert (ours - theirs).norm() <= 1e-4 * theirs.norm()


def test_both_centres_move_by_a_tenth_towards_the_mean_of_all_teacher_tokens(
    method: Ibot,
) -> None:
    clips = _clips(method)
    teacher = method.network.teacher
    with torch.no_grad():
        images = clips.views["globals"].flatten(0, 2)
        logits = teacher.head(teacher.encoder.levels(images, (-1,))[0])
    method.loss(clips)
    method.after_step(_position(0))
    for targets, own in (
        (method.network.dino_loss, logits[:, 0].mean(0)),
        (method.patch_targets, logits[:, 1:].mean((0, 1))),
    ):
        torch.testing.assert_close(targets.center[0], 0.1 * own)


def test_the_losses_start_at_log_of_the_prototypes() -> None:
    torch.manual_seed(0)
    # The published head on a small encoder.
    method = Ibot(replace(TINY, head=HeadConfig(num_prototypes=8192, prototype_init="uniform")))
    with torch.no_grad():
        out = method.masked_loss(_clips(method), _all_masked(method))
    # Cosines to 8192 directions in 256 dimensions deviate by 1/16. Over the temperatures, unrelated
    # crops cost log(8192) + (1/1.6)^2 / 2, and equal ones (1/16)^2 / (0.1 * 0.04) less than that.
    most = math.log(8192) + 0.195
    for name in ("class_loss", "patch_loss"):
        assert most - 0.977 < out.logs[name].item() < most + 0.05


def _all_masked(method: Ibot) -> Tensor:
    """Masks of every second patch, in all global crops."""
    rows, columns = method.config.grid
    return (torch.arange(rows * columns) % 2 == 0).expand(2 * BATCH, -1)


def test_half_of_the_crops_are_masked_by_a_tenth_to_a_half() -> None:
    torch.manual_seed(0)
    method = Ibot(replace(TINY, mask_ratio=(0.1, 0.5)))
    share = method.draw_masks(4000).double().mean(1)
    is_masked = share > 0
    # 0.5 +- 4.5 standard errors of 4000 draws.
    assert is_masked.double().mean() == pytest.approx(0.5, abs=4.5 * 0.5 / 4000**0.5)
    assert share.max() <= 0.5
    # The mean of U(0.1, 0.5), less what no block fits into: a few of a hundred patches.
    assert 0.27 < share[is_masked].mean() < 0.3


@pytest.mark.parametrize("p_mask", [0.0, 1.0])
def test_a_crop_is_masked_with_its_probability(p_mask: float) -> None:
    torch.manual_seed(0)
    method = Ibot(replace(TINY, p_mask=p_mask))
    mask = method.draw_masks(50)
    assert mask.any(1).double().mean() == p_mask
    loss = method.loss(_clips(method)).logs["patch_loss"]
    assert bool(loss) is bool(p_mask)


def test_the_patch_loss_counts_by_its_weight() -> None:
    method = Ibot(replace(TINY, patch_weight=3.0))
    out = method.masked_loss(_clips(method), _all_masked(method))
    wanted = out.logs["class_loss"] + 3 * out.logs["patch_loss"]
    torch.testing.assert_close(out.loss.detach(), wanted)


def test_prototypes_of_patches_can_be_their_own_and_have_a_teacher() -> None:
    torch.manual_seed(0)
    method = Ibot(replace(TINY, share_prototypes=False, teacher_momentum=0.5))
    student, teacher = method.own_prototypes, method.own_teacher_prototypes
    assert torch.equal(student.direction, teacher.direction)
    assert not torch.equal(student.direction, method.network.head.last_layer.direction)
    out = method.masked_loss(_clips(method), _all_masked(method))
    out.loss.backward()
    assert student.direction.grad is not None
    assert student.direction.grad.any()
    assert teacher.direction.grad is None
    with torch.no_grad():
        student.gain.fill_(3.0)
        method.after_step(_position(0))
    assert teacher.gain.unique().tolist() == [2.0]


@pytest.mark.parametrize("share", [True, False])
def test_prototypes_get_no_gradient_in_the_first_epoch_and_then_do(share: bool) -> None:
    method = Ibot(replace(TINY, share_prototypes=share))
    layers = [method.network.head.last_layer, *([] if share else [method.own_prototypes])]
    trained = [p for layer in layers for p in layer.parameters()]
    for step, is_frozen in ((99, True), (100, False)):
        for parameter in method.parameters():
            parameter.grad = torch.ones_like(parameter)
        method.after_backward(_position(step))
        assert all((p.grad is None) is is_frozen for p in trained)
        assert method.mask_token.grad is not None


def test_class_and_patch_temperatures_warm_up_on_their_own() -> None:
    config = replace(
        TINY,
        targets=TargetsConfig(teacher_temperature=0.07, temperature_warmup_epochs=2.0),
        patch_targets=TargetsConfig(teacher_temperature=0.06, temperature_warmup_epochs=4.0),
    )
    method = Ibot(config)
    for step, temperatures in ((0, (0.04, 0.04)), (100, (0.055, 0.045)), (900, (0.07, 0.06))):
        method.before_step(_position(step))
        found = (method.network.dino_loss.temperature, method.patch_targets.temperature)
        assert found == pytest.approx(temperatures)


def test_the_teacher_follows_the_student_and_has_no_mask_token(method: Ibot) -> None:
    method = Ibot(replace(TINY, teacher_momentum=0.5))
    with torch.no_grad():
        method.network.encoder.norm.bias.fill_(1.0)
        method.loss(_clips(method))
        method.after_step(_position(0))
    assert method.network.teacher.encoder.norm.bias.unique().tolist() == [0.5]
    names = [name for name in method.state_dict() if "mask" in name]
    assert names == ["mask_token"]


def test_health_names_the_condition_of_the_class_loss(method: Ibot) -> None:
    class Batch:
        def render(self, spec: object) -> Clips:
            return _clips(method)

    with torch.no_grad():
        assert {"dino_entropy", "dino_kl", "spread_head"} <= set(method.health(Batch()))
        assert set(method.starting_health(Batch())) == {"dino_rho", "dino_rho_needed"}


@pytest.mark.parametrize(
    "change",
    [
        {"p_mask": 1.5},
        {"mask_ratio": (0.5, 0.1)},
        {"mask_ratio": (0.0, 0.001)},
        {"mask_ratio": (0.1, 1.1)},
        {"patch_weight": 0.0},
        {"teacher_momentum": 2.0},
    ],
)
def test_a_setting_out_of_range_is_refused(change: dict) -> None:
    with pytest.raises(MidwayError, match=f"method.{next(iter(change))}"):
        replace(TINY, **change)
