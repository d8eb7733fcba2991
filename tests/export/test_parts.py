"""Parts of a network compute what the analysis and the flow predictors do."""

import pytest
import torch

from midway.analysis.perturbation import perturbation_heatmaps
from midway.errors import MidwayError
from midway.export.heatmap import HeatmapPart
from midway.export.matching import MatchingPart
from midway.export.parts import EncoderPart, NetworkPart
from midway.models.encoders.resnet import ResNet, ResNetConfig
from midway.models.flow.correlation import dynamics_flow
from tests.export.networks import network_of
from tests.models.networks import random_network

SIZES = ((64, 64), (64, 96))


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize("name", ["tiny", "vit_small"])
@torch.no_grad()
def test_heatmaps_and_flow_equal_those_of_the_analysis(name, size):
    network = network_of(name)
    part = HeatmapPart(network, size, level=1, num_draws=3, seed=5)
    source, target, token = inputs = part.examples(batch=2, seed=1)
    expected = perturbation_heatmaps(
        network, source, target, level=1, tokens=token.tolist(), num_draws=3, seed=5
    )
    torch.testing.assert_close(part(*inputs)["heatmap"], expected[0], atol=1e-5, rtol=0)
    flow = MatchingPart(network, size, level=1, radius=2)
    inputs = flow.examples(batch=3, seed=2)
    expected = dynamics_flow(network, *inputs, level=1, radius=2)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(flow(*inputs)["flow"], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_outputs_of_a_network_are_named_by_level_and_field():
    network = random_network()
    part = NetworkPart(network, (32, 32))
    source, target = part.examples()
    found, levels = part(source, target), network(source, target).levels
    assert [*found][:2] == ["level3.motion_latents", "level3.midway_tokens"]
    assert len(found) == 3 * (6 + 2 + 1)
    torch.testing.assert_close(found["level2.prediction"], levels[2].prediction)
    torch.testing.assert_close(found["level1.gates.3"], levels[1].gates[1])
    without = NetworkPart(random_network(latent_dynamics=False), (32, 32))
    assert "level3.motion_latents" not in without.outputs()


@torch.no_grad()
def test_an_encoder_gives_maps_and_a_vit_its_class_token_too():
    vit = network_of("tiny").encoder
    part = EncoderPart(vit, (32, 48), (1, -1))
    (images,) = part.examples()
    found = part(images)
    assert [*found] == ["level1", "level2", "class_token"]
    torch.testing.assert_close([*found.values()][:2], vit.maps(images, (1, 2)))
    torch.testing.assert_close(found["class_token"], vit(images))
    resnet = EncoderPart(ResNet(ResNetConfig()).eval(), (32, 32), (-1,))
    assert resnet.outputs() == ["level4"]


def test_parts_that_a_network_does_not_have_are_refused():
    network = network_of("tiny")
    for make, message in (
        (lambda: HeatmapPart(network, (32, 32), level=2), "level 2 has no forward model"),
        (lambda: HeatmapPart(network, (32, 32), level=1, num_draws=0), "0 draws: give 1 or more"),
        (lambda: MatchingPart(network, (32, 32), level=1, radius=0), "radius 0: too small"),
        (lambda: MatchingPart(network, (32, 32), level=3, radius=1), "level 3 has no forward"),
    ):
        with pytest.raises(MidwayError, match=message):
            make()
