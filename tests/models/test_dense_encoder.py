"""Maps are the features of the network's levels, laid out as the image is."""

import pytest
import torch

from midway.errors import MidwayError
from midway.models.dense_encoder import BackwardEncoder, VitEncoder, weights_hash

from .networks import random_network

IMAGES = torch.randn(2, 3, 24, 40, generator=torch.Generator().manual_seed(0))


def network(**dynamics):
    torch.manual_seed(0)
    return random_network(**dynamics)


def test_maps_are_the_patches_of_the_levels_row_by_row():
    vit = network().encoder
    encoder = VitEncoder(vit)
    assert (encoder.width, encoder.depth, encoder.patch_size) == (24, 4, 8)
    maps = encoder.maps(IMAGES, (4, 2))
    features = vit.levels(IMAGES, (4, 2))
    for level_map, tokens in zip(maps, features, strict=True):
        assert level_map.shape == (2, 24, 3, 5)
        torch.testing.assert_close(level_map[1, :, 2, 3], tokens[1, 1 + 2 * 5 + 3])
    torch.testing.assert_close(encoder.maps(IMAGES, (-1,))[0], maps[0])
    with pytest.raises(MidwayError, match="levels 1 to 4"):
        encoder.maps(IMAGES, (5,))
    with pytest.raises(MidwayError, match="levels 1 to 4"):
        encoder.maps(IMAGES, (-5,))


def test_backward_features_of_the_student_are_those_of_its_dynamics():
    net = network()
    found = net(IMAGES, IMAGES).levels
    maps = BackwardEncoder(net.encoder, net.dynamics).maps(IMAGES, (1, 2, 3, 4))
    for level in (1, 2, 3):
        expected = found[level].source_backward[:, 1:].unflatten(1, (3, 5)).permute(0, 3, 1, 2)
        torch.testing.assert_close(maps[level - 1], expected)
    torch.testing.assert_close(maps[3], VitEncoder(net.encoder).maps(IMAGES, (4,))[0])


def test_backward_features_of_the_teacher_are_those_of_the_target():
    net = network()
    found = net(IMAGES, IMAGES).levels
    (level_map,) = BackwardEncoder(net.teacher.encoder, net.teacher).maps(IMAGES, (1,))
    expected = found[1].target_backward[:, 1:].unflatten(1, (3, 5)).permute(0, 3, 1, 2)
    torch.testing.assert_close(level_map, expected)


def test_backward_features_that_there_are_not_are_refused():
    net = network(levels=(1, 3))
    encoder = BackwardEncoder(net.encoder, net.dynamics)
    with pytest.raises(MidwayError, match="backward features at 1, 3, 4; choose from those"):
        encoder.maps(IMAGES, (2,))
    with pytest.raises(MidwayError, match="cannot be finetuned"):
        encoder.set_drop_path(0.1)
    without = network(backward_layers=False)
    with pytest.raises(MidwayError, match="trained without backward layers"):
        BackwardEncoder(without.encoder, without.dynamics)


def test_layers_are_the_embeddings_then_the_blocks_then_the_rest():
    encoder = VitEncoder(network().encoder)
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    embeddings = {"vit.cls_token", "vit.pos_embed"}
    embeddings |= {"vit.patch_embed.proj.weight", "vit.patch_embed.proj.bias"}
    assert {name for name, layer in layers.items() if layer == 0} == embeddings
    for block in range(4):
        inside = {name for name in layers if name.startswith(f"vit.blocks.{block}.")}
        assert {name for name, layer in layers.items() if layer == block + 1} == inside
    # Those of timm's models that ours have not.
    assert [encoder.layer_of(f"model.{name}") for name in ("dist_token", "norm_pre.bias")] == [0, 0]
    behind = {name for name, layer in layers.items() if layer == 5}
    assert behind == {"vit.norm.weight", "vit.norm.bias"}


def test_the_hash_tells_any_change_of_a_weight_and_nothing_else():
    one, two = VitEncoder(network().encoder), VitEncoder(network().encoder)
    assert weights_hash(one) == weights_hash(two)
    with torch.no_grad():
        two.vit.norm.bias[3] += 1e-6
    assert weights_hash(one) != weights_hash(two)
