"""All that the page shows equals what the commands compute."""

import torch
from torch.nn import functional as F

from midway.analysis.perturbation import perturbation_heatmaps
from midway.analysis.track_steps import Draws, NetworkStep
from midway.demo.part import PagePart
from tests.models.networks import random_network


def test_heat_descriptors_and_gates_are_those_of_the_commands():
    torch.manual_seed(0)
    network = random_network()
    part = PagePart(network, (32, 40), level=2).eval()
    frames = torch.randint(0, 256, (2, 3, 32, 40), dtype=torch.uint8)
    step = NetworkStep(
        network, "midway", level=2, short_side=0, draws=Draws(number=16, seed=0, dtype=None)
    )
    source, target = (step.see(frame) for frame in frames)
    images = source.fitted.images, target.fitted.images
    query = F.normalize(torch.randn(3, 24), dim=1)
    with torch.no_grad():
        found = part(*images, torch.tensor([0, 7, 19]), query)
    heat = perturbation_heatmaps(network, *images, level=2, tokens=[0, 7, 19])
    torch.testing.assert_close(found["heat"], heat[0])
    torch.testing.assert_close(found["descriptor"], source.descriptors.flatten(0, 1)[[0, 7, 19]])
    similarity = torch.einsum("nd,rcd->nrc", query, target.descriptors)
    torch.testing.assert_close(found["similarity"], similarity)
    with torch.no_grad():
        gates = network(*images).levels[2].gates
    assert len(gates) == 2
    for mine, gate in zip(found["gates"], gates, strict=True):
        torch.testing.assert_close(mine.flatten(), gate[0, 1:].mean(1))


def test_a_network_without_gates_carries_everything_over():
    part = PagePart(random_network(gates=False), (32, 32), level=1).eval()
    with torch.no_grad():
        found = part(*part.examples())
    assert torch.equal(found["gates"], torch.ones(1, 4, 4))
