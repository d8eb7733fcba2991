"""Forwarded feature perturbation: which predicted patches a source patch matters to (sec. 4.4).

A random direction is given as tangent to one input token of the forward model and pushed through
it by forward-mode differentiation; how much of it arrives where is the heatmap. Encoder, motion
latents and backward layers run once and are held fixed.
"""

import warnings
from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor
from torch.func import jvp, vmap
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from midway.errors import MidwayError
from midway.models.dynamics import ForwardDynamics, LevelOutput
from midway.models.midway import MidwayNetwork
from midway.nn.evaluating import evaluating


@torch.no_grad()
def perturbation_heatmaps(
    network: MidwayNetwork,
    source: Float[Tensor, "sources 3 height width"],
    target: Float[Tensor, "batch 3 height width"],
    *,
    level: int,
    tokens: Sequence[int] | None = None,
    num_draws: int = 16,
    seed: int = 0,
    chunk: int = 64,
) -> Float[Tensor, "batch perturbed rows columns"]:
    """Cosine between a perturbation and what arrives of it at each target patch, over draws.

    All tokens and pairs share their draws: a heatmap does not depend on what else is asked for.

    Args:
        network: Its mode is restored.
        source: ImageNet-normalised; one serves all targets.
        target: Likewise.
        level: Level of the forward model.
        tokens: Source patches to perturb, counted row by row from 0; all if None.
        num_draws: K, the draws that are averaged.
        seed: Of the draws.
        chunk: Perturbations pushed at a time, each a token and a draw; a matter of memory.

    Raises:
        MidwayError: A level without forward model, or a token outside the image.

    """
    grid = network.grid(target)
    check_level(network, level)
    tokens = range(grid[0] * grid[1]) if tokens is None else tokens
    with evaluating(network):
        output = network(source.expand_as(target), target).levels[level]
    return output_heatmaps(
        network,
        output,
        grid,
        level=level,
        tokens=tokens,
        num_draws=num_draws,
        seed=seed,
        chunk=chunk,
    )


@torch.no_grad()
def output_heatmaps(
    network: MidwayNetwork,
    output: LevelOutput,
    grid: tuple[int, int],
    *,
    level: int,
    tokens: Sequence[int],
    num_draws: int = 16,
    seed: int = 0,
    chunk: int = 64,
) -> Float[Tensor, "batch perturbed rows columns"]:
    """As `perturbation_heatmaps`, of what the network has already said of pairs.

    Args:
        network: Likewise.
        output: Of the network at this level.
        grid: Rows and columns of patches.
        level: Likewise, as are the others.
        tokens: Source patches to perturb.
        num_draws: K.
        seed: Of the draws.
        chunk: Perturbations pushed at a time.

    Raises:
        MidwayError: A level without forward model, or a token outside the image.

    """
    _check_tokens(tokens, grid)
    model = network.dynamics.forward_models[str(level)]
    v, latents = output.source_backward, network.dynamics.raise_latents(output.motion_latents)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(num_draws, v.shape[2], generator=generator).to(v)
    # One perturbation a token and draw, those of a token together; place 0 is the class token.
    places = 1 + torch.tensor(tokens, device=v.device).repeat_interleave(num_draws)
    directions = draws.repeat(len(tokens), 1)
    cosines = torch.stack(
        [
            vmap(partial(_arrived, model, *pair), chunk_size=chunk)(places, directions)
            for pair in zip(v, latents, strict=True)
        ]
    )
    return cosines.unflatten(1, (-1, num_draws)).mean(2).unflatten(2, grid)


def push_forward(
    model: ForwardDynamics,
    features: Float[Tensor, "tokens dim"],
    latents: Float[Tensor, "latents dim"],
    tangent: Float[Tensor, "tokens dim"],
) -> Float[Tensor, "tokens dim"]:
    """How the prediction moves when the features move along `tangent`, the latents held fixed."""

    def predict(x: Tensor) -> Tensor:
        return model(x[None], latents[None])[0][0]

    # Fused attention has no forward derivative, and torch loads its own derivatives by a function
    # that it calls deprecated.
    with sdpa_kernel(SDPBackend.MATH), warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*torch.jit.script", DeprecationWarning)
        return jvp(predict, (features,), (tangent,))[1]


def _arrived(
    model: ForwardDynamics,
    features: Tensor,
    latents: Tensor,
    place: Tensor,
    direction: Tensor,
) -> Tensor:
    """Cosine of each predicted patch's tangent with the direction given to one input token."""
    places = torch.arange(len(features), device=features.device)[:, None]
    tangent = torch.where(places == place, direction, 0)
    pushed = push_forward(model, features, latents, tangent)
    return F.cosine_similarity(pushed[1:], direction, dim=1)


def check_level(network: MidwayNetwork, level: int) -> None:
    """See that a level has a forward model.

    Raises:
        MidwayError: It has none.

    """
    levels = network.config.dynamics.levels
    if level not in levels:
        raise MidwayError(f"level {level} has no forward model; choose one of {levels}")


def _check_tokens(tokens: Sequence[int], grid: tuple[int, int]) -> None:
    outside = [token for token in tokens if not 0 <= token < grid[0] * grid[1]]
    if outside:
        raise MidwayError(
            f"token {outside[0]} is outside the image; with {grid[0]}x{grid[1]} patches choose "
            f"from 0 to {grid[0] * grid[1] - 1}"
        )
