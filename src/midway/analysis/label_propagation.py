"""Masks carried through a video by likeness of features (Jabri et al., 2020; DINO, sec. 4.2.2).

Each patch of a frame takes the mean of the labels of the patches that look most like it, among
those near it in the first frame and in some frames before.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from midway.errors import MidwayError

PATCHES_AT_ONCE = 1024
"""Patches compared with all context at a time, for the sake of memory."""

FeatureMap = Float[Tensor, "dim rows columns"]
LabelMap = Float[Tensor, "objects rows columns"]


@dataclass(frozen=True, kw_only=True)
class PropagationConfig:
    """The protocol of DINO on DAVIS 2017."""

    neighbours: int = 5
    """Patches that a patch takes its label from (top-k)."""
    radius: int = 12
    """How far from its own place they may be, in patches along each axis."""
    context_frames: int = 7
    """Frames before, beside the first one, that they are looked for in."""
    temperature: float = 0.1
    """Of the softmax over cosines that weighs them."""

    def __post_init__(self) -> None:
        if (
            self.neighbours < 1
            or min(self.radius, self.context_frames) < 0
            or self.temperature <= 0
        ):
            raise MidwayError(
                "neighbours must be 1 or more, radius and context_frames 0 or more, temperature "
                "above 0; change what is not"
            )


def propagate(
    features: Iterable[FeatureMap], first: LabelMap, config: PropagationConfig
) -> Iterator[LabelMap]:
    """Soft labels of every frame after the first.

    Args:
        features: Of all frames in order, of one size; their length does not matter.
        first: Share of each patch of the first frame that each object covers, the background too.
        config: The protocol.

    """
    past: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.context_frames)
    near, origin = None, None
    for each in features:
        size = (each.shape[1], each.shape[2])
        seen = F.normalize(each.float().flatten(1), dim=0)
        if origin is None:
            origin = seen, first.flatten(1).to(seen)
            near = neighbourhood(size, config.radius).to(seen.device)
            continue
        assert near is not None
        labels = _carried(seen, [origin, *past], near, config)
        past.append((seen, labels))
        yield labels.unflatten(1, size)


def neighbourhood(size: tuple[int, int], radius: int) -> Bool[Tensor, "patches patches"]:
    """Which patches of a grid of rows and columns are within `radius` of each other."""
    rows, columns = (torch.arange(length) for length in size)
    near_rows = (rows[:, None] - rows).abs() <= radius
    near_columns = (columns[:, None] - columns).abs() <= radius
    both = near_rows[:, None, :, None] & near_columns[None, :, None, :]
    return both.flatten(2).flatten(0, 1)


def soft_labels(
    mask: UInt8[Tensor, "height width"], objects: list[int], size: tuple[int, int]
) -> LabelMap:
    """Share of each patch that the background and each object cover.

    Args:
        mask: Object at each pixel.
        objects: Ids; 0 for the background goes before them.
        size: Rows and columns of patches.

    """
    of_each = torch.stack([mask == number for number in (0, *objects)]).float()
    return F.interpolate(of_each[None], size, mode="area")[0]


def hard_masks(
    labels: LabelMap, objects: list[int], size: tuple[int, int]
) -> UInt8[Tensor, "height width"]:
    """Object at each pixel, from soft labels enlarged to a height and width in pixels.

    Each object's labels are stretched to reach from 0 to 1 over the frame before they compete, as
    in DINO's protocol: they get softer from frame to frame.
    """
    large = F.interpolate(labels[None], size, mode="bilinear")[0]
    low, high = (
        reach[:, None, None] for reach in (large.flatten(1).amin(1), large.flatten(1).amax(1))
    )
    stretched = torch.where(high > low, (large - low) / (high - low).clamp(min=1e-12), large)
    ids = torch.tensor([0, *objects], dtype=torch.uint8, device=labels.device)
    return ids[stretched.argmax(0)]


def _carried(
    seen: Float[Tensor, "dim patches"],
    context: list[tuple[Tensor, Tensor]],
    near: Bool[Tensor, "patches patches"],
    config: PropagationConfig,
) -> Float[Tensor, "objects patches"]:
    """Labels of patches by those of the context: features (dim, patches) and labels of frames."""
    labels = torch.cat([labels for _, labels in context], dim=1)
    found = []
    for start in range(0, seen.shape[1], PATCHES_AT_ONCE):
        part = slice(start, start + PATCHES_AT_ONCE)
        cosines = torch.cat(
            [
                (seen[:, part].T @ known).masked_fill(~near[part], -torch.inf)
                for known, _ in context
            ],
            dim=1,
        )
        best = cosines.topk(min(config.neighbours, cosines.shape[1]), dim=1)
        weights = (best.values / config.temperature).softmax(1)
        found.append((labels[:, best.indices] * weights).sum(2))
    return torch.cat(found, dim=1)
