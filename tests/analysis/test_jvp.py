"""Tangents written out are those of torch's forward mode and of central differences."""

import warnings

import pytest
import torch
from torch import nn
from torch.func import jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from midway.analysis.jvp import ForwardTangents
from midway.models.dynamics import DynamicsConfig, ForwardDynamics
from tests.models.networks import tiny

PLACES = torch.tensor([0, 7, 16])
"""Of the class token, a patch and the last one."""
VARIANTS = [
    {},
    {"gates": False},
    {"gate_input": "own"},
    {"latent_dynamics": False},
    {"forward_depth": 1},
]


def model_of(**dynamics: object) -> ForwardDynamics:
    torch.manual_seed(0)
    model = ForwardDynamics(24, tiny(**dynamics).dynamics).double()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False)


def inputs(config: DynamicsConfig) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    num_latents = config.num_latents if config.latent_dynamics else 0
    features, latents, directions = (
        torch.randn(count, 24, generator=generator).double() for count in (17, num_latents, 3)
    )
    return features, latents, directions


@pytest.mark.parametrize("dynamics", VARIANTS)
def test_pushed_tangents_are_those_of_torch(dynamics):
    model, (features, latents, directions) = model_of(**dynamics), inputs(tiny(**dynamics).dynamics)
    tangents = ForwardTangents(model, features, latents, dtype=torch.float64)
    pushed = tangents.push(PLACES, directions)
    for place, direction, found in zip(PLACES, directions, pushed, strict=True):
        entering = torch.zeros_like(features)
        entering[place] = direction
        # Fused attention has no forward derivative, and torch loads its own derivatives by a
        # function that it calls deprecated.
        with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
            expected = jvp(lambda x: model(x[None], latents[None])[0][0], (features,), (entering,))[
                1
            ]
        assert (found - expected).norm() < 1e-12 * expected.norm()


@pytest.mark.parametrize("dynamics", VARIANTS)
def test_pushed_tangents_are_central_differences(dynamics):
    model, (features, latents, directions) = model_of(**dynamics), inputs(tiny(**dynamics).dynamics)
    tangents = ForwardTangents(model, features, latents, dtype=torch.float64)
    pushed = tangents.push(PLACES, directions)
    for place, direction, found in zip(PLACES, directions, pushed, strict=True):
        step = torch.zeros_like(features)
        step[place] = 1e-5 * direction
        ahead, behind = (model((features + s * step)[None], latents[None])[0] for s in (1, -1))
        expected = (ahead - behind)[0] / 2e-5
        assert (found - expected).norm() < 1e-6 * expected.norm()


def test_the_input_goes_through_as_the_model_lets_it():
    model, (features, latents, _) = model_of(), inputs(tiny().dynamics)
    tangents = ForwardTangents(model, features, latents, dtype=torch.float64)
    expected = model(features[None], latents[None])[0][0]
    torch.testing.assert_close(tangents.blocks[-1].output[len(latents) :], expected)


def test_bfloat16_tangents_are_close_to_those_in_full():
    model, (features, latents, directions) = model_of(), inputs(tiny().dynamics)
    full, half = (
        ForwardTangents(model, features, latents, dtype=dtype).push(PLACES, directions)
        for dtype in (torch.float64, torch.bfloat16)
    )
    assert half.dtype == torch.bfloat16
    assert (full - half).norm() < 0.03 * full.norm()
