"""The readout's loss, its groups, and what is trained and what is not."""

from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from midway.data.segmentation.crops import NEUTRAL
from midway.data.segmentation.loader import SegmentationBatch
from midway.data.segmentation.views import as_network_input
from midway.errors import MidwayError
from midway.evals.readouts.segmentation import ReadoutConfig, SegmentationReadout
from midway.models.encoders.backward import BackwardEncoder
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from tests.models.networks import random_network

LINEAR = ReadoutConfig(kind="linear", levels=(1, 2, 3, 4))
UPERNET = ReadoutConfig(kind="upernet", levels=(1, 2, 3, 4))
FINETUNED = replace(UPERNET, frozen=False, drop_path=0.1, layer_decay=0.9)


def encoder(**changes):
    torch.manual_seed(0)
    sizes = {"image_size": (32, 32), "patch_size": 8, "width": 24, "depth": 4, "heads": 2}
    return VisionTransformer(EncoderConfig(**(sizes | changes)))


def batch(size=(32, 40)):
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(5, (2, *size), generator=generator)
    labels[:, :, :12] = 255
    return SegmentationBatch(
        images=torch.randint(256, (2, 3, *size), generator=generator).to(torch.uint8),
        labels=labels.to(torch.uint8),
        sizes=torch.tensor([size, size]),
        distortion=torch.tensor([NEUTRAL, NEUTRAL]),
    )


def inputs(given):
    return as_network_input(given.images, given.distortion, given.sizes)


@pytest.mark.parametrize("config", [LINEAR, UPERNET, FINETUNED])
def test_outputs_have_the_size_of_images_that_no_patch_divides(config):
    readout = SegmentationReadout(encoder(), config, 5)
    images = torch.randn(2, 3, 29, 42)
    assert [x.shape for x in readout.outputs(images)] == [(2, 5, 29, 42)] * (
        1 if config.kind == "linear" else 2
    )
    assert [x.shape for x in readout.eval().outputs(images)] == [(2, 5, 29, 42)]


def test_a_side_is_filled_up_with_the_mean_colour_and_the_logits_are_not_stretched():
    readout = SegmentationReadout(encoder(), LINEAR, 5).eval()
    images = torch.randn(1, 3, 32, 40)
    filled = images.clone()
    filled[..., 37:] = 0
    (whole,) = readout.outputs(filled)
    (cut,) = readout.outputs(images[..., :37])
    torch.testing.assert_close(cut, whole[..., :37])


def test_the_loss_is_the_sum_over_labelled_pixels_divided_by_all():
    given, readout = batch(), SegmentationReadout(encoder(), LINEAR, 5)
    (logits,) = readout.outputs(inputs(given))
    losses = [
        -logits[n].log_softmax(0)[int(given.labels[n, y, x]), y, x].item()
        for n in range(2)
        for y in range(32)
        for x in range(12, 40)
    ]
    out = readout(given)
    assert out.loss.item() == pytest.approx(sum(losses) / (2 * 32 * 40), rel=1e-4)
    right = (logits.argmax(1) == given.labels)[:, :, 12:].float().mean()
    torch.testing.assert_close(out.logs["pixel_accuracy"], right)


def test_the_auxiliary_loss_of_upernet_weighs_four_tenths():
    given, readout = batch(), SegmentationReadout(encoder(), UPERNET, 5)
    for module in readout.modules():
        if isinstance(module, nn.Dropout2d):
            module.p = 0.0
    main, auxiliary = readout.outputs(inputs(given))
    labels = given.labels.long()
    losses = [
        nn.functional.cross_entropy(x, labels, ignore_index=255) * 28 / 40
        for x in (main, auxiliary)
    ]
    out = readout(given)
    torch.testing.assert_close(out.loss, losses[0] + 0.4 * losses[1])
    torch.testing.assert_close(out.logs["head_loss"], losses[0].detach())


@pytest.mark.parametrize("config", [LINEAR, UPERNET])
def test_a_frozen_encoder_has_no_gradient_and_stays_in_evaluation_mode(config):
    readout = SegmentationReadout(encoder(drop_path=0.5), config, 5).train()
    assert readout.head.training
    assert not any(part.training for part in readout.encoder.modules())
    readout(batch()).loss.backward()
    assert all(p.grad is None for p in readout.encoder.parameters())
    assert all(p.grad is not None for p in readout.head.parameters())
    listed = {id(p) for group in readout.parameter_groups() for p in group.parameters}
    assert listed == {id(p) for p in readout.head.parameters()}
    assert {group.lr_scale for group in readout.parameter_groups()} == {1.0}


def test_a_finetuned_encoder_learns_with_layer_decay_as_ibot_counts_layers():
    readout = SegmentationReadout(encoder(depth=12), replace(FINETUNED, levels=(4, 6, 8, 12)), 5)
    scale = {id(p): g.lr_scale for g in readout.parameter_groups() for p in g.parameters}
    decays = {id(p): g.weight_decay for g in readout.parameter_groups() for p in g.parameters}
    parameters = dict(readout.named_parameters())
    assert len(scale) == len(parameters)
    expected = {
        "encoder.patch_embed.proj.weight": 0.254,
        "encoder.pos_embed": 0.254,
        "encoder.blocks.0.attn.qkv.weight": 0.282,
        "encoder.blocks.11.mlp.fc2.bias": 0.9,
        "encoder.norm.weight": 1.0,
        "head.classifier.weight": 1.0,
        "head.pyramid.scales.1.weight": 1.0,
    }
    for name, factor in expected.items():
        assert scale[id(parameters[name])] == pytest.approx(factor, abs=5e-4), name
    for name, parameter in parameters.items():
        is_free = parameter.ndim <= 1 or name.endswith("bias")
        assert (decays[id(parameter)] == 0) == is_free, name
    readout(batch()).loss.backward()
    assert all(p.grad is not None for p in readout.parameters())


def test_the_encoder_of_a_teacher_is_finetuned_as_well():
    torch.manual_seed(0)
    net = random_network()
    assert not any(p.requires_grad for p in net.teacher.parameters())
    readout = SegmentationReadout(net.teacher.encoder, FINETUNED, 5)
    readout(batch()).loss.backward()
    assert all(p.grad is not None for p in net.teacher.encoder.parameters())
    listed = {id(p) for group in readout.parameter_groups() for p in group.parameters}
    assert {id(p) for p in net.teacher.encoder.parameters()} < listed


def test_a_batch_without_labels_has_no_loss_and_no_accuracy():
    given = replace(batch(), labels=torch.full((2, 32, 40), 255, dtype=torch.uint8))
    out = SegmentationReadout(encoder(), LINEAR, 5)(given)
    assert out.loss == 0
    assert out.logs["pixel_accuracy"].isnan()


def test_drop_path_of_a_finetuned_encoder_grows_from_block_to_block():
    readout = SegmentationReadout(encoder(), FINETUNED, 5)
    rates = [block.drop_path.p for block in readout.encoder.blocks]
    assert rates == pytest.approx([0, 0.1 / 3, 0.2 / 3, 0.1])
    assert readout.encoder.blocks[3].drop_path.training


def test_one_level_is_flowes_head_and_backward_features_are_read_like_the_encoders():
    torch.manual_seed(0)
    net = random_network()
    backward = BackwardEncoder(net.teacher.encoder, net.teacher)
    one = SegmentationReadout(backward, replace(LINEAR, levels=(1,)), 5)
    assert sum(p.numel() for p in one.head.parameters()) == 24 * 5 + 5
    four = SegmentationReadout(backward, LINEAR, 5)
    assert sum(p.numel() for p in four.head.parameters()) == 4 * 24 * 5 + 5
    four(batch()).loss.backward()


def test_bfloat16_forward_passes_have_float32_logits():
    readout = SegmentationReadout(encoder(), UPERNET, 5)
    with torch.autocast("cpu", torch.bfloat16):
        assert readout.outputs(torch.randn(2, 3, 32, 32))[0].dtype == torch.float32
        assert readout(batch()).loss.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"levels": ()}, "levels: give one or more"),
        (
            {"kind": "upernet", "levels": (1, 2, 3)},
            "UperNet takes 4, not 3; one may be given twice",
        ),
        ({"drop_path": 1.0}, "drop_path"),
        ({"layer_decay": 0.0}, "layer_decay"),
        ({"auxiliary_weight": -0.1}, "auxiliary_weight: give 0 or more"),
        ({"auxiliary_weight": float("inf")}, "auxiliary_weight: give 0 or more"),
    ],
)
def test_readouts_that_make_no_sense_are_refused(change, message):
    with pytest.raises(MidwayError, match=message):
        replace(LINEAR, **change)


def test_a_level_that_the_encoder_lacks_is_told_before_training():
    with pytest.raises(MidwayError, match=r"levels 1 to 4; choose from those"):
        SegmentationReadout(encoder(), replace(LINEAR, levels=(4, 6, 8, 12)), 5)


@pytest.mark.parametrize("kind", ["linear", "upernet"])
@pytest.mark.parametrize("frozen", [True, False])
def test_readouts_take_the_stages_of_a_resnet_at_the_size_of_any_image(kind, frozen):
    torch.manual_seed(0)
    resnet = ResNet(ResNetConfig(blocks=(1, 1, 1, 1), width=4))
    statistics = resnet.bn1.running_mean.clone()
    config = ReadoutConfig(kind=kind, levels=(1, 2, 3, -1), frozen=frozen)
    readout = SegmentationReadout(resnet, config, 5)
    out = readout(batch((40, 72)))
    out.loss.backward()
    assert all((p.grad is None) is frozen for p in resnet.parameters())
    assert all(p.grad is not None for p in readout.head.parameters())
    assert torch.equal(resnet.bn1.running_mean, statistics) is frozen
    (logits,) = readout.eval().outputs(torch.zeros(1, 3, 40, 72))
    assert logits.shape == (1, 5, 40, 72)
    listed = [p for group in readout.parameter_groups() for p in group.parameters]
    assert len(listed) == sum(p.requires_grad for p in readout.parameters())


def test_levels_of_a_resnet_meet_at_the_resolution_of_the_finest():
    resnet = ResNet(ResNetConfig(blocks=(1, 1, 1, 1), width=4)).eval()
    config = ReadoutConfig(kind="linear", levels=(1, 4))
    head = SegmentationReadout(resnet, config, 5).head
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        fine, coarse = resnet.maps(images, (1, 4))
        (logits,) = head([fine, coarse])
        stretched = F.interpolate(coarse, (16, 16), mode="bilinear")
        expected = head.classifier(torch.cat([fine, stretched], dim=1))
    torch.testing.assert_close(logits, expected)
