"""Heatmaps are what forward-mode differentiation says, at the right token, whatever the chunks."""

from itertools import product

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from midway.analysis.perturbation import perturbation_heatmaps
from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from tests.models.networks import tiny

LEVELS = (1, 2, 3)


def network_of(**dynamics: object) -> MidwayNetwork:
    torch.manual_seed(0)
    network = MidwayNetwork(tiny(**dynamics)).double()
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    return network.eval()


def images(count: int = 1, height: int = 32, width: int = 32, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, height, width, generator=generator, dtype=torch.float64)


SOURCE, TARGET = images(seed=1), images(seed=2)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("latent_dynamics", [True, False])
def test_heatmaps_are_the_cosines_of_central_differences_at_every_level(level, latent_dynamics):
    network, step = network_of(latent_dynamics=latent_dynamics), 1e-5
    out = network(SOURCE, TARGET).levels[level]
    v, latents = out.source_backward.detach(), torch.empty(1, 0, 24).double()
    if latent_dynamics:
        latents = network.dynamics.midway_path.up(out.motion_latents).detach()
    model = network.dynamics.forward_models[str(level)]
    draw = torch.randn(1, 24, generator=torch.Generator().manual_seed(0)).double()
    moved = torch.zeros_like(v)
    moved[0, 1 + 6] = step * draw[0]
    with torch.no_grad():
        ahead, behind = (model(v + sign * moved, latents)[0][0] for sign in (1, -1))
    expected = F.cosine_similarity((ahead - behind)[1:], draw, dim=1)
    found = perturbation_heatmaps(network, SOURCE, TARGET, level=level, tokens=[6], num_draws=1)
    assert (found.flatten() - expected).norm() < 1e-6 * expected.norm()


def test_heatmaps_are_the_cosines_of_columns_of_the_jacobian():
    network, tokens, num_draws = network_of(), (0, 5, 11), 3
    source, target = images(1, 24, 32), images(1, 24, 32, seed=1)
    out = network(source, target).levels[2]
    v, latents = out.source_backward.detach(), out.motion_latents.detach()
    raised = network.dynamics.midway_path.up(latents).detach()
    model = network.dynamics.forward_models["2"]
    jacobian = torch.autograd.functional.jacobian(lambda x: model(x[None], raised)[0][0], v[0])
    draws = torch.randn(num_draws, 24, generator=torch.Generator().manual_seed(7)).double()
    heatmaps = perturbation_heatmaps(
        network, source, target, level=2, tokens=tokens, num_draws=num_draws, seed=7
    )
    for place, token in enumerate(tokens):
        for patch, (row, column) in enumerate(product(range(3), range(4))):
            block = jacobian[1 + patch, :, 1 + token]
            cosines = [F.cosine_similarity(block @ r, r, dim=0) for r in draws]
            expected = torch.stack(cosines).mean()
            torch.testing.assert_close(heatmaps[0, place, row, column], expected)


def test_zero_latents_and_an_identity_as_forward_model_light_up_the_start_alone():
    network = network_of(gates=False)
    nn.init.zeros_(network.dynamics.midway_path.up.weight)
    nn.init.zeros_(network.dynamics.midway_path.up.bias)
    for block in network.dynamics.forward_models["3"].blocks:
        for projection in (block.attn.proj, block.mlp.fc2):
            nn.init.zeros_(projection.weight)
            nn.init.zeros_(projection.bias)
    heatmaps = perturbation_heatmaps(network, SOURCE, TARGET, level=3, num_draws=2)
    torch.testing.assert_close(heatmaps, torch.eye(16).double().view(1, 16, 4, 4))


@pytest.mark.parametrize("chunk", [1, 5, 1000])
def test_chunks_change_nothing(chunk):
    network, asked = network_of(), {"level": 3, "tokens": [0, 6, 15], "num_draws": 2}
    whole = perturbation_heatmaps(network, SOURCE, TARGET, **asked)
    parts = perturbation_heatmaps(network, SOURCE, TARGET, **asked, chunk=chunk)
    torch.testing.assert_close(parts, whole)


class Largest(TorchDispatchMode):
    """Keeps the size of the largest tensor that is made."""

    size = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for each in made if isinstance(made, (tuple, list)) else [made]:
            self.size = max(self.size, each.numel() if isinstance(each, torch.Tensor) else 0)
        return made


def test_memory_is_bounded_by_the_chunk():
    network = network_of()
    sizes = {}
    for chunk, tokens in ((4, 4), (4, 16), (8, 16)):
        with Largest() as largest:
            perturbation_heatmaps(
                network, SOURCE, TARGET, level=3, tokens=range(tokens), num_draws=8, chunk=chunk
            )
        sizes[chunk, tokens] = largest.size
    assert sizes[4, 16] == sizes[4, 4]
    assert sizes[8, 16] == 2 * sizes[4, 16]


def test_bfloat16_gives_nearly_the_same_heatmaps():
    network, asked = network_of().float(), {"level": 3, "num_draws": 4}
    full = perturbation_heatmaps(network, SOURCE.float(), TARGET.float(), **asked)
    tangents = perturbation_heatmaps(
        network, SOURCE.float(), TARGET.float(), **asked, dtype=torch.bfloat16
    )
    assert tangents.dtype == torch.float32
    assert (full - tangents).abs().max() < 0.02
    whole = perturbation_heatmaps(network.bfloat16(), SOURCE.bfloat16(), TARGET.bfloat16(), **asked)
    assert whole.dtype == torch.bfloat16
    assert (full - whole).abs().max() < 0.2


def test_the_seed_alone_decides_the_draws():
    network = network_of()
    first, again, other = (
        perturbation_heatmaps(network, SOURCE, TARGET, level=3, num_draws=2, seed=seed)
        for seed in (3, 3, 4)
    )
    assert torch.equal(first, again)
    assert not torch.allclose(first, other)


def test_without_latents_the_target_does_not_matter():
    network = network_of(latent_dynamics=False)
    first, other = (
        perturbation_heatmaps(network, SOURCE, target, level=3, tokens=[2], num_draws=2)
        for target in (TARGET, images(seed=3))
    )
    assert torch.equal(first, other)
    assert first.std() > 0


def test_a_heatmap_does_not_depend_on_what_else_is_asked_for():
    network, targets = network_of(), images(3, seed=5)
    every = perturbation_heatmaps(network, SOURCE, targets, level=2, num_draws=2)
    assert every.shape == (3, 16, 4, 4)
    one = perturbation_heatmaps(network, SOURCE, targets[1:2], level=2, tokens=[9], num_draws=2)
    torch.testing.assert_close(one[0, 0], every[1, 9])


def test_a_training_network_is_read_in_evaluation_mode_and_trains_on():
    network = network_of()
    for block in network.encoder.blocks:
        block.drop_path.p = 0.9
    asked = {"level": 3, "tokens": [1], "num_draws": 2}
    expected = perturbation_heatmaps(network, SOURCE, TARGET, **asked)
    found = perturbation_heatmaps(network.train(), SOURCE, TARGET, **asked)
    assert torch.equal(found, expected)
    assert not found.requires_grad
    assert network.training
    assert network.encoder.training
    assert not network.teacher.training


def test_a_level_or_token_that_is_not_there_is_named():
    network = network_of()
    with pytest.raises(MidwayError, match=r"level 4 has no forward model; choose one of \(1, 2, 3"):
        perturbation_heatmaps(network, SOURCE, TARGET, level=4)
    with pytest.raises(MidwayError, match=r"token 16 is outside the image.* 0 to 15"):
        perturbation_heatmaps(network, SOURCE, TARGET, level=3, tokens=[0, 16])
