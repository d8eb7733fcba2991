"""ResNet-50: torchvision's names and sizes, and features of a slow independent forward pass."""

import pytest
import torch
from torch.nn import functional as F

from midway.errors import MidwayError
from midway.models.encoders.resnet import ResNet, ResNetConfig

SMALL = ResNetConfig(blocks=(2, 1, 3, 1), width=4)


def test_resnet_50_has_torchvisions_names_and_parameters_without_the_classifier():
    with torch.device("meta"):
        encoder = ResNet(ResNetConfig())
    assert sum(p.numel() for p in encoder.parameters()) == 25_557_032 - 2_049_000  # less fc
    state = {name: tuple(tensor.shape) for name, tensor in encoder.state_dict().items()}
    assert len(state) == 318
    expected = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_var": (64,),
        "bn1.num_batches_tracked": (),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.2.conv2.weight": (64, 64, 3, 3),
        "layer2.0.conv2.weight": (128, 128, 3, 3),
        "layer3.5.bn3.bias": (1024,),
        "layer4.0.downsample.1.running_mean": (2048,),
        "layer4.2.conv3.weight": (2048, 512, 1, 1),
    }
    assert {name: state[name] for name in expected} == expected
    assert (encoder.width, encoder.depth, encoder.stride) == (2048, 4, 32)
    assert encoder.widths((1, 2, 3, -1)) == [256, 512, 1024, 2048]
    assert encoder.strides((1, 2, 3, 4)) == [4, 8, 16, 32]


def _randomised(config, *, seed=0):
    torch.manual_seed(seed)
    encoder = ResNet(config)
    for name, tensor in encoder.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 2)
        elif tensor.ndim == 1:
            tensor.normal_(mean=0.5 * name.endswith("weight"), std=0.3)
    return encoder.eval()


def _slow_maps(state, blocks, images):
    """Forward pass in float64 from the state dict alone, with batch norm written out."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def norm(x, name):
        mean, var = state[f"{name}.running_mean"], state[f"{name}.running_var"]
        x = (x - mean[:, None, None]) / (var[:, None, None] + 1e-5).sqrt()
        return x * state[f"{name}.weight"][:, None, None] + state[f"{name}.bias"][:, None, None]

    x = F.conv2d(images.double(), state["conv1.weight"], stride=2, padding=3)
    x = F.max_pool2d(norm(x, "bn1").relu(), 3, 2, 1)
    found = []
    for stage, count in enumerate(blocks, start=1):
        for number in range(count):
            name = f"layer{stage}.{number}"
            stride = 2 if stage > 1 and number == 0 else 1
            y = norm(F.conv2d(x, state[f"{name}.conv1.weight"]), f"{name}.bn1").relu()
            y = F.conv2d(y, state[f"{name}.conv2.weight"], stride=stride, padding=1)
            y = F.conv2d(norm(y, f"{name}.bn2").relu(), state[f"{name}.conv3.weight"])
            if number == 0:
                x = F.conv2d(x, state[f"{name}.downsample.0.weight"], stride=stride)
                x = norm(x, f"{name}.downsample.1")
            x = (norm(y, f"{name}.bn3") + x).relu()
        found.append(x)
    return found


def test_maps_agree_with_a_slow_forward_pass_on_the_same_weights():
    encoder = _randomised(SMALL)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        maps = encoder.maps(images, (1, 2, 3, 4))
        top, first = encoder.maps(images, (-1, 1))
        pooled = encoder(images)
    for ours, slow in zip(
        maps, _slow_maps(encoder.state_dict(), SMALL.blocks, images), strict=True
    ):
        torch.testing.assert_close(ours, slow.float(), rtol=1e-4, atol=1e-4)
    assert torch.equal(top, maps[3])
    assert torch.equal(first, maps[0])
    torch.testing.assert_close(pooled, maps[3].mean((2, 3)))


def test_maps_agree_with_transformers_resnet_on_the_same_weights():
    transformers = pytest.importorskip("transformers")
    theirs = transformers.ResNetModel(
        transformers.ResNetConfig(
            embedding_size=4, hidden_sizes=[16, 32, 64, 128], depths=[*SMALL.blocks]
        )
    ).eval()
    encoder = _randomised(SMALL)
    renamed = zip(theirs.state_dict().values(), _in_their_order(encoder), strict=True)
    for tensor, ours in renamed:
        tensor.copy_(ours)
    images = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        hidden = theirs(images, output_hidden_states=True).hidden_states[1:]
        maps = encoder.maps(images, (1, 2, 3, 4))
    for ours, expected in zip(maps, hidden, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


def _in_their_order(encoder):
    """Tensors of the state dict with each block's shortcut before its convolutions."""
    state = encoder.state_dict()
    blocks = dict.fromkeys(".".join(name.split(".")[:2]) for name in state if "layer" in name)
    stem = [tensor for name, tensor in state.items() if "layer" not in name]
    parts = []
    for block in blocks:
        inside = {name: tensor for name, tensor in state.items() if name.startswith(f"{block}.")}
        parts += [tensor for name, tensor in inside.items() if "downsample" in name]
        parts += [tensor for name, tensor in inside.items() if "downsample" not in name]
    return stem + parts


def test_layers_for_layer_decay_are_the_stem_then_the_stages():
    encoder = ResNet(SMALL)
    layers = {name: encoder.layer_of(name) for name, _ in encoder.named_parameters()}
    assert layers["conv1.weight"] == layers["bn1.bias"] == 0
    assert layers["layer1.0.conv1.weight"] == 1
    assert layers["layer4.0.downsample.0.weight"] == 4
    assert {*layers.values()} == {0, 1, 2, 3, 4}


def test_sides_that_do_not_fit_and_levels_that_are_not_there_are_refused():
    encoder = ResNet(SMALL)
    with pytest.raises(MidwayError, match="sides must be multiples of 32"):
        encoder.maps(torch.zeros(1, 3, 48, 64), (1,))
    with pytest.raises(MidwayError, match="the encoder has levels 1 to 4"):
        encoder.maps(torch.zeros(1, 3, 32, 32), (5,))
    encoder.set_drop_path(0.0)
    with pytest.raises(MidwayError, match=r"give --readout\.drop-path 0"):
        encoder.set_drop_path(0.1)
    with pytest.raises(MidwayError, match="must all be 1 or more"):
        ResNetConfig(width=0)
