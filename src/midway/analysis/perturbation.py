"""Forwarded feature perturbation: influence of a source patch on each predicted patch (sec. 4.4).

A random direction is the tangent of one input token of the forward model and is propagated by
forward-mode differentiation. The heatmap is the cosine similarity between the direction and the
tangent of each predicted patch, averaged over K directions. Encoder, motion latents and backward
layers run once and are constant.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.jvp import ForwardTangents
from midway.errors import MidwayError
from midway.models.dynamics import ForwardDynamics, LevelOutput
from midway.models.midway import MidwayNetwork
from midway.nn.eval_mode import evaluating


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
    chunk: int = 16,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "batch perturbed rows columns"]:
    """Compute the perturbation heatmaps of pairs of images.

    All tokens and pairs share their random directions, so a heatmap does not depend on the other
    arguments of a call.

    Args:
        network: Network; its mode is restored.
        source: ImageNet-normalised images, one per target or one for all.
        target: ImageNet-normalised images.
        level: Level of the forward model.
        tokens: Source patches to perturb, as row-major indices from 0; all if None.
        num_draws: K, the number of random directions that are averaged.
        seed: Seed of the directions.
        chunk: Perturbations per forward pass, each a token and a direction. Memory grows with it;
            values above the default are slower on a CPU; on a GPU they are not measured.
        dtype: Dtype of the tangents; the network's if None. Bfloat16 is several times faster on
            hardware with instructions for it.

    Returns:
        Cosine similarities, from -1 to 1.

    Raises:
        MidwayError: The level has no forward model, a token is outside the image, or `num_draws` is
            below 1.

    """
    grid = network.grid(target)
    check_level(network, level)
    tokens = range(grid[0] * grid[1]) if tokens is None else tokens
    with evaluating(network):
        output = network.at_level(source.expand_as(target), target, level)
    return output_heatmaps(
        network,
        output,
        grid,
        level=level,
        tokens=tokens,
        num_draws=num_draws,
        seed=seed,
        chunk=chunk,
        dtype=dtype,
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
    chunk: int = 16,
    dtype: torch.dtype | None = None,
) -> Float[Tensor, "batch perturbed rows columns"]:
    """Compute the perturbation heatmaps from existing outputs of the network.

    Args:
        network: Network that computed `output`.
        output: Output of the network at this level.
        grid: Rows and columns of patches.
        level: Level of the forward model.
        tokens: Source patches to perturb, as row-major indices from 0.
        num_draws: K, the number of random directions that are averaged.
        seed: Seed of the directions.
        chunk: Perturbations per forward pass.
        dtype: Dtype of the tangents; the network's if None.

    Returns:
        Cosine similarities, from -1 to 1.

    Raises:
        MidwayError: A token is outside the image, or `num_draws` is below 1.

    """
    _check(tokens, grid, num_draws)
    model = network.dynamics.forward_models[str(level)]
    assert isinstance(model, ForwardDynamics)
    v, latents = output.source_backward, network.dynamics.raise_latents(output.motion_latents)
    draws = random_directions(num_draws, v.shape[2], seed).to(v)
    # One perturbation per token and direction, grouped by token; place 0 is the class token.
    places = 1 + torch.tensor(tokens, device=v.device).repeat_interleave(num_draws)
    directions = draws.repeat(len(tokens), 1)
    cosines = []
    for pair in zip(v, latents, strict=True):
        tangents = ForwardTangents(model, *pair, dtype=dtype or v.dtype)
        for some, along in zip(places.split(chunk), directions.split(chunk), strict=True):
            cosines.append(tangent_cosines(tangents, some, along))
    # (batch, tokens, draws, patches), averaged over the draws
    found = torch.cat(cosines).unflatten(0, (len(v), len(tokens), num_draws))
    return found.mean(2).unflatten(2, grid)


def random_directions(num_draws: int, dim: int, seed: int) -> Float[Tensor, "draws dim"]:
    """Draw the directions of perturbations from a normal distribution, on the CPU."""
    return torch.randn(num_draws, dim, generator=torch.Generator().manual_seed(seed))


def tangent_cosines(
    tangents: ForwardTangents,
    places: Int[Tensor, " perturbations"],
    directions: Float[Tensor, "perturbations dim"],
) -> Float[Tensor, "perturbations patches"]:
    """Return the cosine similarity of each perturbation and the tangent of each predicted patch.

    Args:
        tangents: Derivative of the forward model at one pair.
        places: Token that each perturbation changes; 0 is the class token.
        directions: Direction of each perturbation.

    """
    # (perturbations, patches, dim), without the class token
    pushed = tangents.push(places, directions)[:, 1:]
    return F.cosine_similarity(pushed.to(directions), directions[:, None], dim=2)


def fast_dtype(device: torch.device) -> torch.dtype:
    """Return the fastest dtype of a device: float32 on CPUs without bfloat16, else bfloat16."""
    if device.type != "cpu":
        return torch.bfloat16
    # Torch before 2.11 has no `get_capabilities`; float32 is the safe default.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    is_fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if is_fast else torch.float32


def check_level(network: MidwayNetwork, level: int) -> None:
    """Check that a level has a forward model.

    Raises:
        MidwayError: The level has no forward model.

    """
    levels = network.config.dynamics.levels
    if level not in levels:
        raise MidwayError(f"level {level} has no forward model; choose one of {levels}")


def _check(tokens: Sequence[int], grid: tuple[int, int], num_draws: int) -> None:
    if num_draws < 1:
        raise MidwayError(f"{num_draws} draws: give 1 or more")
    outside = [token for token in tokens if not 0 <= token < grid[0] * grid[1]]
    if outside:
        raise MidwayError(
            f"token {outside[0]} is outside the image of {grid[0]}x{grid[1]} patches; choose from "
            f"0 to {grid[0] * grid[1] - 1}"
        )
