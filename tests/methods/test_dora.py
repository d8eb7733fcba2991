"""DoRA: the loss against the sheet's loops, its quirks, and masks on a planted scene."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.experiments.walking_tours import dora_vits, dora_vits_released
from midway.methods.dora import Dora, DoraConfig, DoraViewsConfig
from midway.models.dino import HeadConfig
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.weights.release import ReleaseHints
from midway.models.weights.sources import load_encoder
from midway.train.objective import Progress

ENCODER = EncoderConfig(
    image_size=(32, 32), patch_size=8, width=24, depth=2, heads=3, drop_path=0.0, init_std=0.2
)
SMALL = DoraConfig(
    encoder=ENCODER,
    head=HeadConfig(hidden=16, bottleneck=8, num_prototypes=12, init_std=0.2),
    views=DoraViewsConfig(num_frames=8, global_size=(32, 32), local_size=(16, 16), num_local=3),
)
RELEASED = replace(SMALL, threshold_over="batch", object_weights="falling", skip_first_local=True)


def _build(config: DoraConfig) -> tuple[Dora, Clips]:
    torch.manual_seed(0)
    method = Dora(config)
    method.network.dino_loss.center.normal_(std=0.02)
    return method, example_clips(method.spec, 2, generator=torch.Generator().manual_seed(1))


def _cross_entropy(target: Tensor, student: Tensor) -> Tensor:
    return -(target * F.log_softmax(student / 0.1, dim=-1)).sum(-1).mean()


def _slow_loss(method: Dora, clips: Clips, *, released: bool) -> Tensor:
    """Frame after frame and object after object, as the sheet words it (its section 6)."""
    student, teacher = method.network, method.network.teacher
    frames, local = clips.views["global"][:, 0], clips.views["locals"]
    with torch.no_grad():
        seen = teacher.encoder.top_attention(frames.flatten(0, 1))
        masks = method.object_masks(seen, len(clips))
        center = student.dino_loss.center
        targets = [((teacher.head(teacher.encoder(x)) - center) / 0.04).softmax(-1) for x in frames]
    total, carried = torch.zeros(()), torch.zeros(())
    for j in range(3):
        if not released:
            carried = torch.zeros(())
        for t in range(8):
            # (batch, 16) -> (batch, 1, 4, 4) -> (batch, 1, 32, 32)
            mask = F.interpolate(masks[j, t].view(2, 1, 4, 4).float(), scale_factor=8)
            of_mask = _cross_entropy(targets[t], student.head(student.encoder(mask * frames[t])))
            of_local = [
                _cross_entropy(targets[t], student.head(student.encoder(local[t, crop])))
                for crop in range(int(released), 3)
            ]
            carried = carried + (of_mask + torch.stack(of_local).mean()) / 2
        carried = carried / 8
        total = total + carried
    return total / 3


@pytest.mark.parametrize("released", [False, True])
def test_the_loss_and_its_gradient_equal_a_loop_over_objects_frames_and_crops(
    released: bool,
) -> None:
    method, clips = _build(RELEASED if released else SMALL)
    torch.manual_seed(2)
    ours = method.loss(clips).loss
    torch.manual_seed(2)
    slow = _slow_loss(method, clips, released=released)
    torch.testing.assert_close(ours, slow)
    trained = [p for p in method.parameters() if p.requires_grad]
    for found, wanted in zip(
        torch.autograd.grad(ours, trained), torch.autograd.grad(slow, trained), strict=True
    ):
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-3)


def test_as_released_the_first_object_weighs_a_seventh_more_than_the_last() -> None:
    cpu = torch.device("cpu")
    assert _build(SMALL)[0].object_weights(cpu).tolist() == [1, 1, 1]
    released = _build(RELEASED)[0].object_weights(cpu)
    torch.testing.assert_close(released, torch.tensor([1 + 1 / 8 + 1 / 64, 1 + 1 / 8, 1.0]))


def test_the_released_preset_has_the_quirks_and_the_other_none() -> None:
    fixed, released = dora_vits(), dora_vits_released()
    assert fixed.method == DoraConfig()
    changed = {
        name for name, value in vars(fixed.method).items() if vars(released.method)[name] != value
    }
    assert changed == {"threshold_over", "object_weights", "skip_first_local"}
    assert (fixed.data, fixed.optim) == (released.data, released.optim)


def test_objects_come_from_as_many_different_heads() -> None:
    method, clips = _build(replace(SMALL, num_objects=2))
    seen = method.network.teacher.encoder.top_attention(clips.views["global"][:, 0].flatten(0, 1))
    found = {tuple(method.object_masks(seen, 2).flatten().tolist()) for _ in range(20)}
    assert len(found) > 1
    with pytest.raises(MidwayError, match="num_objects = 4 of 3 heads"):
        replace(SMALL, num_objects=4)


def test_the_centre_follows_the_logits_of_whole_frames() -> None:
    method, clips = _build(SMALL)
    teacher, before = method.network.teacher, method.network.dino_loss.center.clone()
    method.loss(clips)
    with torch.no_grad():
        logits = teacher.head(teacher.encoder(clips.views["global"].flatten(0, 2)))
        method.after_step(Progress(step=0, steps=10, steps_per_epoch=2.0, samples=2))
    wanted = 0.9 * before + 0.1 * logits.mean(0)
    torch.testing.assert_close(method.network.dino_loss.center, wanted)


def _see_colours(encoder: VisionTransformer) -> None:
    """Set the weights of a block whose heads 0, 1 and 2 attend to red, green and blue patches.

    Channels 0, 8 and 16, the first of each head, hold a patch's mean colours; channel 1 marks the
    class token, and channel 2 is constant, so that the norm leaves colours comparable.
    """
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.zero_()
        for norm in (encoder.norm, encoder.blocks[0].norm1, encoder.blocks[0].norm2):
            norm.weight.fill_(1)
        qkv = encoder.blocks[0].attn.qkv.weight  # (3 * 24, 24): queries, keys, values
        for head in range(3):
            channel = 8 * head
            encoder.patch_embed.proj.weight[channel, head] = 1 / 64
            # The class token asks every head for its colour, a patch for its own.
            qkv[channel, 1] = qkv[channel, channel] = 2
            qkv[24 + channel, channel] = 2
        encoder.cls_token[..., 1] = 3
        encoder.pos_embed[:, 1:, 2] = 3


def _planted_scene(frames: int, batch: int) -> tuple[Tensor, Tensor]:
    """A red and a green square that move over a noisy backdrop, and their patches in each frame."""
    images = 0.3 * torch.randn(frames, batch, 3, 64, 64)
    truth = torch.zeros(2, frames, batch, 8, 8, dtype=torch.bool)
    for t in range(frames):
        for b in range(batch):
            # In patches: red goes right, green goes up; they never meet.
            places = ((slice(b, b + 3), slice(t, t + 3)), (slice(5 - t, 8 - t), slice(5, 8)))
            if b + 3 > 5 - t and t + 3 > 5:
                places = (places[0], (slice(5, 8), slice(0, 3)))
            for colour, (rows, columns) in enumerate(places):
                truth[colour, t, b, rows, columns] = True
                rows, columns = (slice(8 * s.start, 8 * s.stop) for s in (rows, columns))
                images[t, b, colour, rows, columns] += 2
    return images, truth.flatten(3)


@pytest.mark.parametrize("threshold_over", ["image", "batch"])
def test_masks_cover_two_planted_objects_in_every_frame(threshold_over: str) -> None:
    torch.manual_seed(0)
    encoder = replace(ENCODER, image_size=(64, 64), depth=1)
    views = replace(SMALL.views, num_frames=4, global_size=(64, 64))
    config = replace(SMALL, encoder=encoder, views=views, threshold_over=threshold_over)
    method = Dora(config)
    _see_colours(method.network.teacher.encoder)
    images, truth = _planted_scene(frames=4, batch=2)
    with torch.no_grad():
        seen = method.network.teacher.encoder.top_attention(images.flatten(0, 1))
    masks = method.object_masks(seen, 2)  # (objects, frames, batch, patches)
    for wanted in truth:
        both = (masks & wanted).sum((1, 2, 3)) / (masks | wanted).sum((1, 2, 3))
        best = masks[both.argmax()]
        # One object of the three is this square, and stays on it.
        iou = (best & wanted).sum(-1) / (best | wanted).sum(-1)
        assert iou.min() > 0.5, iou


def _published(method: Dora, form: str) -> dict[str, Any]:
    """A file of DoRA: the teacher's backbone alone, below a key, or a whole checkpoint of a run."""
    teacher, student = (
        network.state_dict() for network in (method.network.teacher.encoder, method.network.encoder)
    )
    if form == "backbone":
        return dict(teacher)
    if form == "teacher":
        return {"teacher": {f"module.backbone.{name}": each for name, each in teacher.items()}}
    head = {f"head.mlp.{n}.{end}": torch.ones(2) for n in (0, 2, 4) for end in ("weight", "bias")}
    head |= {f"head.last_layer.weight_{part}": torch.ones(2) for part in "gv"}
    return {
        "student": {f"module.backbone.{name}": each for name, each in student.items()}
        | {f"module.{name}": each for name, each in head.items()},
        "teacher": {f"backbone.{name}": each for name, each in teacher.items()} | head,
        "optimizer": {"state": {}, "param_groups": []},
        "epoch": 100,
        "args": {"arch": "vit_small", "patch_size": 8},
        "dino_loss": {"center": torch.zeros(1, 12)},
        "fp16_scaler": None,
    }


@pytest.mark.parametrize("form", ["backbone", "teacher", "whole"])
def test_files_in_the_published_layout_open_strictly_and_give_the_teachers_features(
    tmp_path: Path, form: str
) -> None:
    method, _ = _build(SMALL)
    with torch.no_grad():
        for parameter in method.network.encoder.parameters():
            parameter.add_(0.1)  # so that student and teacher differ
    path, state = tmp_path / "dora.pth", _published(method, form)
    torch.save(state, path)
    hints = ReleaseHints(encoder_heads=3)
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(2))
    teacher = method.network.teacher.encoder.eval()
    with torch.no_grad():
        (found,) = load_encoder(str(path), hints=hints).maps(images, (-1,))
        (wanted,) = teacher.maps(images, (-1,))
    torch.testing.assert_close(found, wanted)
    # A tensor that is missing, or that belongs to nothing, is an error, unlike in the release.
    inner = state.get("teacher", state)
    (name,) = [name for name in inner if name.endswith("blocks.1.mlp.fc1.weight")]
    kept = inner.pop(name)
    torch.save(state, path)
    with pytest.raises(MidwayError, match=r"blocks\.1\.mlp\.fc1\.weight"):
        load_encoder(str(path), hints=hints)
    inner |= {name: kept, name.replace("fc1.weight", "fc9.weight"): kept}
    torch.save(state, path)
    with pytest.raises(MidwayError, match=r"blocks\.1\.mlp\.fc9\.weight"):
        load_encoder(str(path), hints=hints)
