"""Label propagation through a video by feature similarity (Jabri et al., 2020; DINO, sec. 4.2.2).

The label of a patch is the weighted mean of the labels of its most similar patches, among those
within a spatial radius in the first frame and in the preceding frames.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from midway.config import require

PATCHES_AT_ONCE = 1024
"""Query patches per matrix product with the context; it bounds the memory use."""

FeatureMap = Float[Tensor, "dim rows columns"]
LabelMap = Float[Tensor, "objects rows columns"]


@dataclass(frozen=True, kw_only=True)
class PropagationConfig:
    """Propagation parameters; the defaults are DINO's protocol for DAVIS 2017."""

    neighbours: int = 5
    """Number of most similar patches that determine a label (top-k)."""
    radius: int = 12
    """Maximum distance of these patches along each axis, in patches."""
    context_frames: int = 7
    """Number of preceding frames that are searched, besides the first frame."""
    temperature: float = 0.1
    """Temperature of the softmax over cosine similarities that weights the labels."""
    as_published: bool = False
    """If True, resize as DINO's published code does: frames to multiples of 64 pixels without
    antialiasing, the first mask to the nearest pixel of each patch, masks to the video's size by
    the nearest pixel. Else sides are whole patches, and labels are shares of patches."""

    def __post_init__(self) -> None:
        rules = {
            f"neighbours = {self.neighbours}; give 1 or more": self.neighbours >= 1,
            f"radius = {self.radius}; give 0 or more": self.radius >= 0,
            f"context_frames = {self.context_frames}; give 0 or more": self.context_frames >= 0,
            f"temperature = {self.temperature}; give a number above 0": self.temperature > 0,
        }
        require("", rules)


def propagate(
    features: Iterable[FeatureMap], first: LabelMap, config: PropagationConfig
) -> Iterator[LabelMap]:
    """Yield the soft labels of each frame after the first.

    Args:
        features: Feature maps of all frames in order, of one size; they are normalised here.
        first: Soft labels of the first frame, from `soft_labels`.
        config: Propagation parameters.

    """
    past: deque[tuple[Tensor, Tensor]] = deque(maxlen=config.context_frames)
    near, origin = None, None
    for each in features:
        size = (each.shape[1], each.shape[2])
        unit = F.normalize(each.float().flatten(1), dim=0)  # (dim, patches)
        if origin is None:
            origin = unit, first.flatten(1).to(unit)
            near = neighbourhood(size, config.radius).to(unit.device)
            continue
        assert near is not None
        labels = _propagated(unit, [origin, *past], near, config)
        past.append((unit, labels))
        yield labels.unflatten(1, size)


def neighbourhood(size: tuple[int, int], radius: int) -> Bool[Tensor, "patches patches"]:
    """Return a mask of the pairs of patches within `radius` of each other along each axis.

    Args:
        size: Rows and columns of patches.
        radius: Maximum distance in patches.
    """
    rows, columns = (torch.arange(length) for length in size)
    near_rows = (rows[:, None] - rows).abs() <= radius
    near_columns = (columns[:, None] - columns).abs() <= radius
    both = near_rows[:, None, :, None] & near_columns[None, :, None, :]
    return both.flatten(2).flatten(0, 1)


def soft_labels(
    mask: UInt8[Tensor, "height width"],
    objects: list[int],
    size: tuple[int, int],
    *,
    nearest: bool = False,
) -> LabelMap:
    """Return the share of each patch that the background and each object cover.

    Unlabelled pixels count for none of them.

    Args:
        mask: Object id of each pixel.
        objects: Ids of the objects, without 0, the background; the output starts with it.
        size: Rows and columns of patches.
        nearest: If True, a patch has the label of its central pixel.

    """
    of_each = torch.stack([mask == number for number in (0, *objects)]).float()
    return F.interpolate(of_each[None], size, mode="nearest-exact" if nearest else "area")[0]


def hard_masks(
    labels: LabelMap, objects: list[int], size: tuple[int, int], *, patch: int = 0
) -> UInt8[Tensor, "height width"]:
    """Return the object id of each pixel, from soft labels upsampled to `size`.

    As in DINO's protocol, the labels of each object are rescaled to the range 0 to 1 over the frame
    before the argmax, because they become softer from frame to frame.

    Args:
        labels: Soft labels of the background and the objects.
        objects: Ids of the objects.
        size: Height and width in pixels.
        patch: If above 0, the argmax is taken at this many pixels per patch, and the masks are
            resized by the nearest pixel.
    """
    rows, columns = labels.shape[1:]
    fine = (rows * patch, columns * patch) if patch else size
    large = F.interpolate(labels[None], fine, mode="bilinear")[0]
    low, high = large.amin((1, 2), keepdim=True), large.amax((1, 2), keepdim=True)
    rescaled = torch.where(high > low, (large - low) / (high - low).clamp(min=1e-12), large)
    ids = torch.tensor([0, *objects], dtype=torch.uint8, device=labels.device)
    masks = ids[rescaled.argmax(0)]
    return F.interpolate(masks[None, None].float(), size, mode="nearest-exact")[0, 0].byte()


def _propagated(
    unit: Float[Tensor, "dim patches"],
    context: list[tuple[Tensor, Tensor]],
    near: Bool[Tensor, "patches patches"],
    config: PropagationConfig,
) -> Float[Tensor, "objects patches"]:
    """Return the labels of a frame, from the features and labels of the context frames."""
    labels = torch.cat([labels for _, labels in context], dim=1)
    found = []
    for start in range(0, unit.shape[1], PATCHES_AT_ONCE):
        part = slice(start, start + PATCHES_AT_ONCE)
        # (queries, frames * patches)
        cosines = torch.cat(
            [
                (unit[:, part].T @ known).masked_fill(~near[part], -torch.inf)
                for known, _ in context
            ],
            dim=1,
        )
        best = cosines.topk(min(config.neighbours, cosines.shape[1]), dim=1)
        weights = (best.values / config.temperature).softmax(1)
        # (objects, queries, neighbours), summed over the neighbours
        found.append((labels[:, best.indices] * weights).sum(2))
    return torch.cat(found, dim=1)
