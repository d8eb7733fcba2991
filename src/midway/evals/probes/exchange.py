"""Dense loss of pairs with the motion latents of other pairs, and half frames to exchange them.

Where most of the frame moves as one, the left and the right half of a frame pair share the motion,
but no content. If latents of one half help the other too, they contain motion; if they help only
their own half, they contain its appearance. Both halves may share colours or light, though. The
latents of the other half in reverse order have that look too, but the inverse motion. This needs
no ground truth.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from math import inf

import torch
from torch import Tensor

from midway.data.sampling.loader import ClipLoader
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.views.boxes import Box
from midway.data.views.spec import ClipSpec, Region, View
from midway.errors import MidwayError
from midway.models.midway import MidwayNetwork
from midway.nn.eval_mode import evaluating
from midway.nn.losses.dense import normalized_mse

BATCH = 8
"""Pairs per forward pass."""


@dataclass(frozen=True, kw_only=True)
class HalvesConfig:
    """Pairs of video frames, each cut in a left and a right half."""

    root: str = ""
    """Folder of videos or any other root of training data; if empty, worlds are rendered."""
    gap_seconds: float = 0.5
    """Time between source and target."""
    num_pairs: int = 64
    """Number of pairs; each has two halves."""
    seed: int = 0
    """Seed of the choice of pairs."""

    def __post_init__(self) -> None:
        if self.num_pairs < 2 or not 0 < self.gap_seconds < inf or self.seed < 0:
            raise MidwayError(
                f"data: {self.num_pairs} pairs {self.gap_seconds} s apart, seed {self.seed}; give "
                "2 pairs or more, a gap above 0 and a seed of 0 or more"
            )


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """Outputs of one level for all pairs."""

    latents: Tensor
    reversed_latents: Tensor
    """Motion latents from the target to the source."""
    source_backward: Tensor
    target: Tensor
    copied: Tensor
    """The teacher's features of the source."""


def read_halves(network: MidwayNetwork, config: HalvesConfig) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches of source and target: the left halves of some pairs, then the right ones.

    Args:
        network: Network; each half has its image size.
        config: Pairs to read.

    Raises:
        MidwayError: No usable clips below the root.

    """
    height, width = network.config.encoder.image_size
    whole = Box(area=(1.0, 1.0), aspect=(2 * width / height, 2 * width / height))
    view = View(size=(height, 2 * width), region="frame", aligned=True)
    spec = ClipSpec(num_frames=2, regions={"frame": Region(box=whole)}, views={"frame": view})
    data = ClipsConfig(
        root=config.root,
        gap_seconds=(config.gap_seconds, config.gap_seconds),
        batch_size=1,
        num_workers=1,  # a damaged video ends the worker, not this process
    )
    dataset = ClipDataset(data.find(spec.num_frames), data, spec, seed=config.seed)
    loader = ClipLoader(dataset)
    device = next(network.parameters()).device
    pairs: list[Tensor] = []
    for number, batch in enumerate(loader.batches(0, config.num_pairs), start=1):
        pairs.append(batch.to(device).render(spec).views["frame"][:, 0])
        if len(pairs) == BATCH or number == config.num_pairs:
            # (2, pairs, 3, height, 2 * width) -> (2, 2 * pairs, 3, height, width)
            frames = torch.cat(torch.cat(pairs, dim=1).chunk(2, dim=4), dim=1)
            yield frames[0], frames[1]
            pairs = []


def half_losses(network: MidwayNetwork, config: HalvesConfig) -> dict[int, dict[str, Tensor]]:
    """Compute the dense loss of each half of video frame pairs with exchanged latents, by level.

    Args:
        network: Network with motion latents; its mode is restored.
        config: Pairs to read.

    Returns:
        As `midway.evals.latents.exchanged_losses`; `alike` has the latents of the other half of the
        pair, `reversed` those of the other half in reverse order, `other_motion` those of a half of
        another pair.

    Raises:
        MidwayError: No usable clips below the root, or the network has no latents.

    """
    sizes: list[int] = []

    def batches() -> Iterator[tuple[Tensor, Tensor]]:
        for source, target in read_halves(network, config):
            sizes.append(len(source) // 2)
            yield source, target

    with evaluating(network):
        encoded = encode(network, batches())
        # Row of the other half, and of the same half of the next pair.
        halves = torch.arange(2 * sum(sizes)).split([size for size in sizes for _ in range(2)])
        left, right = torch.cat(halves[::2]), torch.cat(halves[1::2])
        other_half = torch.empty(2 * sum(sizes), dtype=torch.long)
        other_half[left], other_half[right] = right, left
        next_pair = torch.empty_like(other_half)
        next_pair[left], next_pair[right] = left.roll(-1), right.roll(-1)
        return {
            level: exchanged(
                network,
                level,
                own,
                {
                    "alike": own.latents[other_half],
                    "reversed": own.reversed_latents[other_half],
                    "other_motion": own.latents[next_pair],
                },
            )
            for level, own in encoded.items()
        }


def encode(network: MidwayNetwork, batches: Iterable[tuple[Tensor, Tensor]]) -> dict[int, Encoded]:
    """Run the network on batches of source and target, and return the joined outputs by level.

    Raises:
        MidwayError: The network has no motion latents.

    """
    if not network.config.dynamics.latent_dynamics:
        raise MidwayError("network: has no motion latents; take one with latent_dynamics")
    levels = network.config.dynamics.levels
    found: dict[int, list[Encoded]] = {level: [] for level in levels}
    for source, target in batches:
        outputs = network.forward_both_orders(source, target).levels
        copied = network.teacher.encoder.levels(source, levels)
        for level, copy in zip(levels, copied, strict=True):
            output = outputs[level]
            # (2 * pairs, latents, width): all pairs, then all in reverse order.
            latents, reversed_latents = output.motion_latents.chunk(2)
            found[level].append(
                Encoded(
                    latents=latents,
                    reversed_latents=reversed_latents,
                    source_backward=output.source_backward.chunk(2)[0],
                    target=output.target.chunk(2)[0],
                    copied=copy,
                )
            )
    return {level: _joined(parts) for level, parts in found.items()}


def _joined(parts: list[Encoded]) -> Encoded:
    names = [field.name for field in fields(Encoded)]
    return Encoded(**{name: torch.cat([getattr(part, name) for part in parts]) for name in names})


def exchanged(
    network: MidwayNetwork, level: int, own: Encoded, others: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the dense losses (pairs,) of one level, by source of the latents.

    Args:
        network: Network in evaluation mode.
        level: Level of the forward model.
        own: Outputs of the level.
        others: Latents (pairs, latents, width) of other pairs, by name.

    """
    model, dynamics = network.dynamics.forward_models[str(level)], network.dynamics
    given = {
        "own": own.latents,
        **others,
        "none": torch.zeros_like(own.latents),
    }
    predicted = {
        name: torch.cat(
            [
                model(v, dynamics.raise_latents(m))[0]
                for v, m in zip(own.source_backward.split(BATCH), latents.split(BATCH), strict=True)
            ]
        )
        for name, latents in given.items()
    }
    predicted["copy"] = own.copied
    return {
        name: torch.stack(
            [
                normalized_mse(one[None], true[None]).cpu()
                for one, true in zip(each, own.target, strict=True)
            ]
        )
        for name, each in predicted.items()
    }
