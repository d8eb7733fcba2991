"""Forwarded feature perturbation: which predicted patches a source patch matters to (sec. 4.4).

A random direction is given as tangent to one input token of the forward model and pushed through
it by forward-mode differentiation; how much of it arrives where is the heatmap. Encoder, motion
latents and backward layers run once and are held fixed.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Float
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
        chunk: Perturbations pushed at a time, each a token and a draw. Memory grows with it; on a
            CPU more than the default is slower, on a GPU faster.
        dtype: Of the tangents; the network's if None. Bfloat16 is several times as fast where there
            are instructions for it.

    Raises:
        MidwayError: A level without forward model, a token outside the image, or no draws.

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
        dtype: Of the tangents.

    Raises:
        MidwayError: A token outside the image, or no draws.

    """
    _check(tokens, grid, num_draws)
    model = network.dynamics.forward_models[str(level)]
    assert isinstance(model, ForwardDynamics)
    v, latents = output.source_backward, network.dynamics.raise_latents(output.motion_latents)
    generator = torch.Generator().manual_seed(seed)
    draws = torch.randn(num_draws, v.shape[2], generator=generator).to(v)
    # One perturbation a token and draw, those of a token together; place 0 is the class token.
    places = 1 + torch.tensor(tokens, device=v.device).repeat_interleave(num_draws)
    directions = draws.repeat(len(tokens), 1)
    cosines = []
    for pair in zip(v, latents, strict=True):
        tangents = ForwardTangents(model, *pair, dtype=dtype or v.dtype)
        for some, along in zip(places.split(chunk), directions.split(chunk), strict=True):
            pushed = tangents.push(some, along)[:, 1:]
            cosines.append(F.cosine_similarity(pushed.to(v), along[:, None], dim=2))
    found = torch.cat(cosines).unflatten(0, (len(v), len(tokens), num_draws))
    return found.mean(2).unflatten(2, grid)


def fast_dtype(device: torch.device) -> torch.dtype:
    """Fastest precision that a device has instructions for: bfloat16, or float32 on many CPUs."""
    if device.type != "cpu":
        return torch.bfloat16
    # Before torch 2.11 there is no such question, and float32 is the safe answer.
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    is_fast = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return torch.bfloat16 if is_fast else torch.float32


def check_level(network: MidwayNetwork, level: int) -> None:
    """See that a level has a forward model.

    Raises:
        MidwayError: It has none.

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
            f"token {outside[0]} is outside the image; with {grid[0]}x{grid[1]} patches choose "
            f"from 0 to {grid[0] * grid[1] - 1}"
        )
