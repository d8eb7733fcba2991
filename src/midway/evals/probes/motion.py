"""Linear probes of motion: ridge regression of flow and camera motion from the midway path.

The flow of a patch is predicted from its midway tokens, and the camera motion from the motion
latents. The ridge penalty is selected on held-out training pairs.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.data.synthetic.rigid import RigidWorld
from midway.data.synthetic.world import World
from midway.data.synthetic.write import AnyWorldConfig
from midway.errors import MidwayError
from midway.evals.probes.linear import MIN_DEVIATION, LinearProbe, as_input
from midway.models.midway import MidwayNetwork
from midway.nn.eval_mode import evaluating

STRENGTHS = tuple(10.0**exponent for exponent in range(-5, 5))
"""Candidate ridge penalties, for features of unit variance."""
HELD_OUT = 0.2
"""Share of the training pairs that select the penalty: the last ones, from other worlds."""
BATCH = 32
"""Pairs of a forward pass."""


@dataclass(frozen=True, kw_only=True, eq=False)
class PairSet:
    """Pairs of frames with ground-truth motion, ordered by world or clip."""

    source: Tensor
    """uint8 of shape (N, H, W, 3), or ImageNet-normalised floats of shape (N, 3, H, W)."""
    target: Tensor
    """Same format as `source`."""
    flow: Tensor
    """Displacement of source pixels to the right and down in pixels, shape (N, H, W, 2)."""
    camera_motion: Tensor
    """Displacement of the camera in pixels, shape (N, 2)."""


@dataclass(frozen=True, kw_only=True)
class ProbeScore:
    """Endpoint error (EPE) of a probe in pixels, with two baselines that use no image."""

    epe: float
    epe_zero: float
    """EPE of predicting no motion."""
    epe_mean: float
    """EPE of predicting the mean motion of the training pairs."""
    explained: float
    """1 - squared error / squared error of the mean prediction: 1 is perfect, 0 is as good as the
    mean, and negative values are worse."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MotionScore:
    """Scores and flow predictions of the probes on the test pairs."""

    flow: ProbeScore
    """Score of patch flow from midway tokens."""
    camera: ProbeScore
    """Score of camera motion from motion latents."""
    predicted_flow: Tensor
    """Predicted patch flow in pixels, shape (N, rows, columns, 2)."""
    true_flow: Tensor
    """Ground-truth patch flow, same shape: the mean over all pixels of a patch, occluded ones
    included."""


def motion_probe(network: MidwayNetwork, train: PairSet, test: PairSet) -> MotionScore:
    """Fit both probes on training pairs and score them on test pairs.

    Args:
        network: Frozen network; its mode is restored.
        train: Pairs of several worlds or clips; the penalty is selected on the last fifth.
        test: Pairs of other worlds or clips.

    Raises:
        MidwayError: The network has no motion latents, or there are fewer than two training pairs.

    """
    patch = network.config.encoder.patch_size
    train_tokens, train_latents = motion_features(network, train, batch_size=BATCH)
    test_tokens, test_latents = motion_features(network, test, batch_size=BATCH)
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
    """Return the inputs of the probes, concatenated over levels, in float64 on the CPU.

    Returns:
        Midway tokens of each source patch and of the target patch at the same position, shape
        (N, rows, columns, levels * 2 * width), and motion latents, shape
        (N, levels * latents * width).

    Raises:
        MidwayError: The network has no motion latents.

    """
    if not network.config.dynamics.latent_dynamics:
        raise MidwayError(
            "motion probe: the network has no motion latents; take one trained with latent_dynamics"
        )
    frames = zip(pairs.source.split(batch_size), pairs.target.split(batch_size), strict=True)
    with evaluating(network):
        outputs = [_encode(network, *(as_input(part, network) for part in pair)) for pair in frames]
    tokens, latents = (torch.cat(parts).double().cpu() for parts in zip(*outputs, strict=True))
    return tokens, latents


def _encode(network: MidwayNetwork, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    grid = network.grid(source)
    tokens, latents = [], []
    for level in network(source, target).levels.values():
        latents.append(level.motion_latents.flatten(1))
        # Midway tokens are the latents, then class token and patches of source and target.
        frames = level.midway_tokens[:, level.motion_latents.shape[1] :].chunk(2, dim=1)
        tokens += [frame[:, 1:].unflatten(1, grid) for frame in frames]
    return torch.cat(tokens, dim=3), torch.cat(latents, dim=1)


def patch_flow(flow: Tensor, patch_size: int) -> Tensor:
    """Average flow (N, H, W, 2) over patches; return float64 of shape (N, rows, columns, 2)."""
    pooled = F.avg_pool2d(flow.double().permute(0, 3, 1, 2), patch_size)
    return pooled.permute(0, 2, 3, 1)


def fit_ridge(features: Tensor, motion: Tensor) -> LinearProbe:
    """Fit ridge regression to all samples, with the penalty selected on the last ones.

    Args:
        features: Inputs of shape (N, ..., dim), float64.
        motion: Targets of shape (N, ..., 2).

    Raises:
        MidwayError: Fewer than two samples along the first axis.

    """
    if len(features) < 2:
        raise MidwayError("motion probe: fewer than two training pairs; give two or more")
    motion = motion.to(features)
    start = len(features) - max(1, round(HELD_OUT * len(features)))
    candidates = ridge_path(features[:start], motion[:start])
    held_out = [(probe(features[start:]) - motion[start:]).square().mean() for probe in candidates]
    return ridge_path(features, motion)[int(torch.stack(held_out).argmin())]


def ridge_path(features: Tensor, motion: Tensor) -> list[LinearProbe]:
    """Solve ridge regression in closed form on standardised features, for each of `STRENGTHS`."""
    x, y = features.flatten(0, -2), motion.flatten(0, -2)
    mean, deviation = x.mean(0), x.std(0, correction=0).clamp(min=MIN_DEVIATION)
    x, y_mean = (x - mean) / deviation, y.mean(0)
    # The dual form is cheaper if there are more features than samples: w = X^T (X X^T + s)^-1 y.
    wide = x.shape[1] > x.shape[0]
    gram = (x @ x.T if wide else x.T @ x) / len(x)
    # One eigendecomposition serves all penalties.
    values, vectors = torch.linalg.eigh(gram)
    moments = vectors.T @ ((y - y_mean) if wide else x.T @ (y - y_mean)) / len(x)
    solutions = [vectors @ (moments / (values + strength)[:, None]) for strength in STRENGTHS]
    return [
        LinearProbe(weight=w.T @ x if wide else w.T, bias=y_mean).before(mean, deviation)
        for w in solutions
    ]


def probe_score(predicted: Tensor, true: Tensor, train: Tensor) -> ProbeScore:
    """Score predicted motion (..., 2); the mean of `train` is the mean prediction."""
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
    config: AnyWorldConfig,
    seeds: Iterable[int],
    gap_seconds: float,
    pairs_per_world: int,
) -> PairSet:
    """Render pairs of synthetic worlds, with sources evenly spaced over each world's video."""
    step_seconds = config.num_frames / config.fps / pairs_per_world
    pairs = [
        _pair(config.build(seed), number * step_seconds, gap_seconds)
        for seed in seeds
        for number in range(pairs_per_world)
    ]
    source, target, flow, camera_motion = (
        torch.from_numpy(np.stack(parts)) for parts in zip(*pairs, strict=True)
    )
    return PairSet(source=source, target=target, flow=flow, camera_motion=camera_motion)


def _pair(
    world: World | RigidWorld, source_seconds: float, gap_seconds: float
) -> tuple[NDArray, ...]:
    target_seconds = source_seconds + gap_seconds
    return (
        world.frame(source_seconds).image,
        world.frame(target_seconds).image,
        world.flow(source_seconds, target_seconds).flow,
        world.camera_motion(source_seconds, target_seconds),
    )
