"""How much of the true motion is linearly readable from the midway path.

Ridge regression reads the flow of a patch from its midway tokens, and the camera's motion from
the motion latents; the strength is chosen on training pairs that are held out.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError
from midway.evals.probes.linear import MIN_DEVIATION, LinearProbe, as_input
from midway.models.midway import MidwayNetwork
from midway.nn.eval_mode import evaluating

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 5))
"""Ridge penalties tried, relative to features of unit variance."""
HELD_OUT = 0.2
"""Share of the training pairs that choose the strength; the last ones, so as to be other worlds."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSet:
    """Pairs of frames whose motion is known, neighbours in time or place next to each other."""

    source: Tensor
    """uint8 of shape (N, H, W, 3), or ImageNet-normalised floats of shape (N, 3, H, W)."""
    target: Tensor
    flow: Tensor
    """Motion of the source pixels to the right and down in pixels, shape (N, H, W, 2)."""
    camera_motion: Tensor
    """Likewise of the camera, shape (N, 2)."""


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """Endpoint errors (EPE) in pixels, beside those of guesses that see no image."""

    epe: float
    epe_zero: float
    """Of guessing no motion."""
    epe_mean: float
    """Of guessing the mean motion of the training pairs."""
    explained: float
    """1 - squared error / squared error of the mean guess: 1 is perfect, 0 is worth nothing,
    and below is worse than the guess."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionScore:
    """What was read of the test pairs' motion."""

    flow: ProbeScore
    """Of patches, from the midway tokens."""
    camera: ProbeScore
    """Of the camera, from the motion latents."""
    predicted_flow: Tensor
    """Shape (N, rows, columns, 2), in pixels."""
    true_flow: Tensor
    """Likewise: the mean over each patch's pixels, seen or hidden in the target."""


def motion_probe(
    network: MidwayNetwork, train: PairSet, test: PairSet, *, batch_size: int = 32
) -> MotionScore:
    """Fit both probes on training pairs and score them on test pairs.

    Args:
        network: Frozen; its mode is restored.
        train: Several worlds or clips, as their last fifth chooses the strength.
        test: Other worlds or clips.
        batch_size: Pairs at a time.

    Raises:
        MidwayError: The network has no motion latents, or there are fewer than two training pairs.

    """
    patch = network.config.encoder.patch_size
    train_tokens, train_latents = motion_features(network, train, batch_size=batch_size)
    test_tokens, test_latents = motion_features(network, test, batch_size=batch_size)
    train_flow, true_flow = (patch_flow(pairs.flow.cpu(), patch) for pairs in (train, test))
    predicted_flow = fit_ridge(train_tokens, train_flow)(test_tokens)
    camera = fit_ridge(train_latents, train.camera_motion)(test_latents)
    return MotionScore(
        flow=probe_score(predicted_flow, true_flow, train_flow),
        camera=probe_score(camera, test.camera_motion.to(camera), train.camera_motion.to(camera)),
        predicted_flow=predicted_flow,
        true_flow=true_flow,
    )


def motion_features(
    network: MidwayNetwork, pairs: PairSet, *, batch_size: int
) -> tuple[Tensor, Tensor]:
    """What the probes read, all levels concatenated, in float64 on the CPU.

    Returns:
        Midway tokens of each source patch and of the target patch at the same place, of shape
        (N, rows, columns, levels * 2 * width), and motion latents (N, levels * latents * width).

    Raises:
        MidwayError: The network has no motion latents.

    """
    if not network.config.dynamics.latent_dynamics:
        raise MidwayError(
            "motion probe: the network has no motion latents; take one trained with latent_dynamics"
        )
    frames = zip(pairs.source.split(batch_size), pairs.target.split(batch_size), strict=True)
    with evaluating(network):
        read = [_read(network, *(as_input(part, network) for part in pair)) for pair in frames]
    tokens, latents = (torch.cat(parts).double().cpu() for parts in zip(*read, strict=True))
    return tokens, latents


def _read(network: MidwayNetwork, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    grid = network.grid(source)
    tokens, latents = [], []
    for level in network(source, target).levels.values():
        latents.append(level.motion_latents.flatten(1))
        frames = level.midway_tokens[:, level.motion_latents.shape[1] :].chunk(2, dim=1)
        tokens += [frame[:, 1:].unflatten(1, grid) for frame in frames]
    return torch.cat(tokens, dim=3), torch.cat(latents, dim=1)


def patch_flow(flow: Tensor, patch_size: int) -> Tensor:
    """Mean flow of each patch in pixels, (N, rows, columns, 2) in float64 from (N, H, W, 2)."""
    pooled = F.avg_pool2d(flow.double().permute(0, 3, 1, 2), patch_size)
    return pooled.permute(0, 2, 3, 1)


def fit_ridge(features: Tensor, motion: Tensor) -> LinearProbe:
    """Ridge regression whose strength is chosen on the last samples, then fitted to all.

    Args:
        features: Shape (N, ..., dim), float64.
        motion: Shape (N, ..., 2).

    Raises:
        MidwayError: Fewer than two samples along the first axis.

    """
    if len(features) < 2:
        raise MidwayError("motion probe: fewer than two training pairs; give more")
    motion = motion.to(features)
    start = len(features) - max(1, round(HELD_OUT * len(features)))
    candidates = _ridge_path(features[:start], motion[:start])
    held_out = [(probe(features[start:]) - motion[start:]).square().mean() for probe in candidates]
    return _ridge_path(features, motion)[int(torch.stack(held_out).argmin())]


def _ridge_path(features: Tensor, motion: Tensor) -> list[LinearProbe]:
    """Closed-form ridge on standardised features, one probe for each of `STRENGTHS`."""
    x, y = features.flatten(0, -2), motion.flatten(0, -2)
    mean, deviation = x.mean(0), x.std(0, correction=0).clamp(min=MIN_DEVIATION)
    x, y_mean = (x - mean) / deviation, y.mean(0)
    wide = x.shape[1] > x.shape[0]
    gram = (x @ x.T if wide else x.T @ x) / len(x)
    values, vectors = torch.linalg.eigh(gram)
    moments = vectors.T @ ((y - y_mean) if wide else x.T @ (y - y_mean)) / len(x)
    solutions = [vectors @ (moments / (values + strength)[:, None]) for strength in STRENGTHS]
    return [
        LinearProbe(weight=w.T @ x if wide else w.T, bias=y_mean).before(mean, deviation)
        for w in solutions
    ]


def probe_score(predicted: Tensor, true: Tensor, train: Tensor) -> ProbeScore:
    """Score of predicted motion (..., 2) of test pairs; `train` gives the mean guess."""
    mean = train.flatten(0, -2).mean(0)
    squared_error = (predicted - true).square().sum()
    return ProbeScore(
        epe=_endpoint_error(predicted - true),
        epe_zero=_endpoint_error(true),
        epe_mean=_endpoint_error(mean - true),
        explained=(1 - squared_error / (mean - true).square().sum()).item(),
    )


def _endpoint_error(difference: Tensor) -> float:
    return difference.norm(dim=-1).mean().item()


def synthetic_pairs(
    config: WorldConfig, seeds: Iterable[int], gap_seconds: float, pairs_per_world: int
) -> PairSet:
    """Pairs of synthetic worlds, their sources evenly over the length of a world's video."""
    step_seconds = config.num_frames / config.fps / pairs_per_world
    pairs = [
        _pair(World(config, seed), number * step_seconds, gap_seconds)
        for seed in seeds
        for number in range(pairs_per_world)
    ]
    source, target, flow, camera_motion = (
        torch.from_numpy(np.stack(parts)) for parts in zip(*pairs, strict=True)
    )
    return PairSet(source=source, target=target, flow=flow, camera_motion=camera_motion)


def _pair(world: World, source_seconds: float, gap_seconds: float) -> tuple[NDArray, ...]:
    target_seconds = source_seconds + gap_seconds
    return (
        world.frame(source_seconds).image,
        world.frame(target_seconds).image,
        world.flow(source_seconds, target_seconds).flow,
        world.camera_motion(source_seconds, target_seconds),
    )
