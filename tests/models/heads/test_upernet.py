"""The heads have the parts, sizes and arithmetic of the published ones."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.heads.upernet import LinearReadout, UperNet

WIDTH = 384
CLASSES = 19


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def conv(kernel, channels, out):
    """Weights of a convolution without bias and the scale and shift of its norm."""
    return kernel * kernel * channels * out + 2 * out


def test_upernet_for_vit_s_has_the_parameters_counted_by_hand():
    head = UperNet(WIDTH, CLASSES)
    doubling = 2 * 2 * 384 * 384 + 384
    assert count(head.pyramid) == doubling + 2 * 384 + doubling + doubling == 1771392
    assert count(head.pooled) == 4 * conv(1, 384, 384) == 592896
    assert count(head.bottleneck) == conv(3, 5 * 384, 384) == 6636288
    assert count(head.laterals) == 3 * conv(1, 384, 384) == 444672
    assert count(head.outputs) == 3 * conv(3, 384, 384) == 3983616
    assert count(head.fusion) == conv(3, 4 * 384, 384) == 5309184
    assert count(head.classifier) == 384 * 19 + 19 == 7315
    assert count(head.auxiliary) == conv(3, 384, 256) + 256 * 19 + 19 == 890131
    assert count(head) == 19635494


def test_the_linear_heads_for_vit_s_are_one_convolution():
    assert count(LinearReadout(4 * 384, CLASSES)) == 1536 * 19 + 19
    assert count(LinearReadout(384, 150)) == 384 * 150 + 150


def random_maps(width=12, rows=6, columns=8, batch=2):
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(batch, width, rows, columns, generator=generator) for _ in range(4)]


def test_logits_are_four_times_finer_and_auxiliary_ones_come_only_in_training():
    torch.manual_seed(0)
    head = UperNet(12, 5)
    logits, auxiliary = head(random_maps())
    assert logits.shape == (2, 5, 24, 32)
    assert auxiliary.shape == (2, 5, 6, 8)
    (alone,) = head.eval()(random_maps())
    assert alone.shape == (2, 5, 24, 32)
    pyramid = head.pyramid(random_maps())
    assert [tuple(x.shape[2:]) for x in pyramid] == [(24, 32), (12, 16), (6, 8), (3, 4)]


def test_odd_grids_are_taken():
    head = UperNet(12, 5).eval()
    (logits,) = head(random_maps(rows=7, columns=5))
    assert logits.shape == (2, 5, 28, 20)


def test_maps_that_cannot_be_made_coarser_are_told():
    with pytest.raises(MidwayError, match="maps of 1x3 patches are below 2x2"):
        UperNet(12, 5).eval()(random_maps(rows=1, columns=3))


def test_a_classifier_begins_small_and_every_parameter_learns():
    torch.manual_seed(0)
    head = UperNet(12, 5)
    assert head.classifier.weight.std().item() == pytest.approx(0.01, rel=0.3)
    assert not head.classifier.bias.any()
    logits, auxiliary = head(random_maps())
    (logits.square().mean() + auxiliary.square().mean()).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


def test_the_linear_head_is_a_product_with_the_concatenated_features_of_each_place():
    torch.manual_seed(0)
    head, maps = LinearReadout(48, 5), random_maps()
    (logits,) = head(maps)
    weight, bias = head.classifier.weight[:, :, 0, 0], head.classifier.bias
    place = torch.cat([x[1, :, 4, 7] for x in maps])
    torch.testing.assert_close(logits[1, :, 4, 7], weight @ place + bias)


def slow_fusion(head, pyramid):
    """UperNet step by step as its paper and mmsegmentation describe it."""

    def conv_norm_relu(part, x):
        norm = part.norm
        y = F.conv2d(x, part.conv.weight, padding=part.conv.weight.shape[-1] // 2)
        mean, var = norm.running_mean, norm.running_var
        y = (y - mean[:, None, None]) / (var[:, None, None] + norm.eps).sqrt()
        return (y * norm.weight[:, None, None] + norm.bias[:, None, None]).relu()

    def to(x, size):
        return F.interpolate(x, size=size, mode="bilinear", align_corners=False)

    c1, c2, c3, c4 = pyramid
    pooled = [c4]
    for size, (_, part) in zip((1, 2, 3, 6), head.pooled, strict=True):
        pooled.append(to(conv_norm_relu(part, F.adaptive_avg_pool2d(c4, size)), c4.shape[2:]))
    p4 = conv_norm_relu(head.bottleneck, torch.cat(pooled, 1))
    p3 = conv_norm_relu(head.laterals[2], c3) + to(p4, c3.shape[2:])
    p2 = conv_norm_relu(head.laterals[1], c2) + to(p3, c2.shape[2:])
    p1 = conv_norm_relu(head.laterals[0], c1) + to(p2, c1.shape[2:])
    size = c1.shape[2:]
    fused = [
        conv_norm_relu(head.outputs[0], p1),
        to(conv_norm_relu(head.outputs[1], p2), size),
        to(conv_norm_relu(head.outputs[2], p3), size),
        to(p4, size),
    ]
    return conv_norm_relu(head.fusion, torch.cat(fused, 1))


def test_the_pyramid_is_fused_as_published():
    torch.manual_seed(0)
    head = UperNet(12, 5).eval()
    for module in head.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(tensor)
    pyramid = head.pyramid(random_maps())
    expected = slow_fusion(head, pyramid)
    torch.testing.assert_close(head.fuse(pyramid), expected)
    (logits,) = head(random_maps())
    torch.testing.assert_close(logits, head.classifier(expected))


@pytest.mark.parametrize("part", ["decode", "auxiliary"])
def test_heads_agree_with_those_of_transformers_on_copied_weights(part):
    upernet = pytest.importorskip(
        "transformers.models.upernet.modeling_upernet",
        reason="transformers is not installed: its UperNet is not compared",
    )
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    ours = UperNet(12, 5).eval()
    config = transformers.UperNetConfig(
        hidden_size=12,
        num_labels=5,
        pool_scales=[1, 2, 3, 6],
        auxiliary_in_channels=12,
        auxiliary_channels=256,
        auxiliary_num_convs=1,
    )
    pyramid = ours.pyramid(random_maps())
    if part == "decode":
        theirs = upernet.UperNetHead(config, in_channels=[12] * 4).eval()
        pairs = [(ours.bottleneck, theirs.bottleneck), (ours.fusion, theirs.fpn_bottleneck)]
        pairs += [(ours.pooled[i][1], theirs.psp_modules.blocks[i].layers[1]) for i in range(4)]
        pairs += [*zip(ours.laterals, theirs.lateral_convs, strict=True)]
        pairs += [*zip(ours.outputs, theirs.fpn_convs, strict=True)]
        classifier, logits = ours.classifier, ours.classifier(ours.fuse(pyramid))
    else:
        theirs = upernet.UperNetFCNHead(config, in_channels=[12] * 4).eval()
        pairs = [(ours.auxiliary.conv, theirs.convs[0])]
        classifier, logits = ours.auxiliary.classifier, ours.auxiliary(pyramid[2])
    for mine, other in pairs:
        other.conv.load_state_dict(mine.conv.state_dict())
        other.batch_norm.load_state_dict(mine.norm.state_dict())
    theirs.classifier.load_state_dict(classifier.state_dict())
    torch.testing.assert_close(theirs(pyramid), logits)
