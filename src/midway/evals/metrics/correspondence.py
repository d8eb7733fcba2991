"""Accuracy of patch correspondence maps against ground-truth flow.

Positions are (x, y) in units of patches; integers are patch centres.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MIN_KNOWN = 0.125
"""Minimum share of pixels with known flow in a scored patch. It is low because flow from laser
scanners is sparse."""
NEAR = 1.0
"""Largest distance, in patches, at which a predicted position counts as correct."""
ROUNDING = 1e-9
"""Tolerance below which two scores are equal."""

Places = Float[Tensor, "patches 2"]
Maps = Float[Tensor, "patches rows columns"]


@dataclass(frozen=True, kw_only=True)
class TruePlaces:
    """Source patches that are visible in the target, with their ground-truth positions."""

    tokens: Int[Tensor, " patches"]
    """Patch index in row-major order."""
    starts: Places
    """Positions in the source."""
    places: Places
    """Positions in the target."""

    def chosen(self, which: Tensor) -> "TruePlaces":
        """Return a subset, selected by index or boolean mask."""
        return TruePlaces(
            tokens=self.tokens[which], starts=self.starts[which], places=self.places[which]
        )

    def distances(self) -> Float[Tensor, " patches"]:
        """Return the displacement of each patch, in patches."""
        return (self.places - self.starts).norm(dim=1)


def true_places(
    flow: Float[Tensor, "2 height width"], occluded: Tensor | None, grid: tuple[int, int]
) -> TruePlaces:
    """Return the ground-truth positions of all patches that can be scored.

    The displacement of a patch is the per-component median of its pixels' flow. A patch is scored
    if enough of its flow is known, most of the known pixels are visible in the target, and its
    position in the target is inside the image.

    Args:
        flow: Displacement to the right and down in pixels; not finite where unknown.
        occluded: Mask of source pixels that are hidden in the target, shape (height, width); None
            if the dataset has no occlusion masks.
        grid: Rows and columns of patches; they divide the height and width.

    """
    rows, columns = grid
    patch = (flow.shape[2] // columns, flow.shape[1] // rows)
    known = flow.isfinite().all(0)
    seen = known if occluded is None else known & ~occluded
    # (2, H, W) to (2, patches, pixels of a patch)
    vectors = _by_patch(torch.where(seen, flow, torch.nan), grid).double()
    num_known, num_seen = (_by_patch(mask[None].float(), grid)[0].sum(1) for mask in (known, seen))
    steps = vectors.nanmedian(2).values.T / vectors.new_tensor(patch)
    tokens = torch.arange(rows * columns)
    starts = torch.stack([tokens % columns, tokens // columns], dim=1).double()
    places = starts + steps
    counts = num_known >= MIN_KNOWN * patch[0] * patch[1]
    counts &= (2 * num_seen > num_known) & inside(places, grid)
    every = TruePlaces(tokens=tokens, starts=starts, places=places)
    return every.chosen(counts)


def inside(places: Places, grid: tuple[int, int], *, border: float = 0.5) -> Tensor:
    """Return a mask of the positions that lie inside a grid of patches; NaN is outside.

    Args:
        places: Positions in patches.
        grid: Rows and columns.
        border: Margin beyond the centres of the outermost patches, in patches.

    """
    rows, columns = grid
    last = places.new_tensor([columns, rows]) - 1 + border
    return ((places >= -border) & (places <= last)).all(1)


def token_measures(
    maps: Maps, truth: TruePlaces, patch_pixels: tuple[float, float]
) -> dict[str, Float[Tensor, " patches"]]:
    """Return the metrics of each patch; NaN where a metric is undefined.

    Args:
        maps: For each patch, the scores of all positions in the target.
        truth: Ground truth of the same patches.
        patch_pixels: Width and height of a patch in pixels.

    Returns:
        Metrics by name, each of shape (patches,):

        - `near`: 1 if the maximum is within one patch of the true position, else 0;
        - `near_else`: the same for the maximum outside the patch's source position; NaN if all
          scores there are equal;
        - `epe`: distance of the maximum from the true position, in pixels;
        - `mass_epe`: distance of `centre_of_mass` from the true position, in pixels;
        - `lean`: 1 if the true position scores higher than its mirror image about the source
          position, 0 if lower, 0.5 if equal; NaN if either is outside the patch centres;
        - `at_start`: 1 if the maximum is at the source position, else 0.

    """
    maps = maps.double()
    grid = (maps.shape[1], maps.shape[2])
    found = _highest(maps)
    # (patches, rows * columns), with the source position excluded from the maximum or minimum
    others = maps.flatten(1).scatter(1, truth.tokens[:, None], -torch.inf).view_as(maps)
    rest = maps.flatten(1).scatter(1, truth.tokens[:, None], torch.inf)
    differs = others.flatten(1).amax(1) - rest.amin(1) > ROUNDING
    elsewhere = ((_highest(others) - truth.places).norm(dim=1) <= NEAR).double()
    pixels = maps.new_tensor(patch_pixels)
    mirrored = 2 * truth.starts - truth.places
    both_inside = inside(mirrored, grid, border=0) & inside(truth.places, grid, border=0)
    ahead, behind = (_at(maps, places) for places in (truth.places, mirrored))
    margin = ahead - behind
    lean = 0.5 * (1 + margin.sign() * (margin.abs() > ROUNDING))
    return {
        "near": ((found - truth.places).norm(dim=1) <= NEAR).double(),
        "near_else": torch.where(differs, elsewhere, torch.nan),
        "epe": ((found - truth.places) * pixels).norm(dim=1),
        "mass_epe": ((centre_of_mass(maps) - truth.places) * pixels).norm(dim=1),
        "lean": torch.where(both_inside, lean, torch.nan),
        "at_start": (found == truth.starts).all(1).double(),
    }


def centre_of_mass(maps: Maps) -> Places:
    """Return the centre of mass of each map's scores above half its maximum.

    If no score is above 0, return the position of the maximum.
    """
    flat = maps.flatten(1)
    highest = flat.amax(1, keepdim=True)
    weights = (flat - highest.clamp(min=0) / 2).clamp(min=0)
    weights = torch.where(highest > 0, weights, (flat == highest).to(flat))
    weights = (weights / weights.sum(1, keepdim=True)).view_as(maps)
    x = torch.arange(maps.shape[2], device=maps.device)
    y = torch.arange(maps.shape[1], device=maps.device)[:, None]
    return torch.stack([(weights * x).sum((1, 2)), (weights * y).sum((1, 2))], dim=1)


def chance(truth: TruePlaces, grid: tuple[int, int]) -> Float[Tensor, " patches"]:
    """Return the expected `near` of a uniformly random position, for each patch."""
    rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    all_places = torch.stack([x, y], dim=2).flatten(0, 1).to(truth.places)
    return (torch.cdist(truth.places, all_places) <= NEAR).double().mean(1)


@dataclass(kw_only=True)
class Tally:
    """Running mean of metrics over patches; NaN values are skipped."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, measures: Mapping[str, Tensor]) -> None:
        """Add the metrics of one pair's patches."""
        for name, values in measures.items():
            real = values[~values.isnan()]
            self.sums[name] = self.sums.get(name, 0.0) + real.sum().item()
            self.counts[name] = self.counts.get(name, 0) + len(real)

    def means(self) -> dict[str, float | None]:
        """Return the mean of each metric; None if it was NaN for all patches."""
        return {
            name: total / self.counts[name] if self.counts[name] else None
            for name, total in self.sums.items()
        }


def _highest(maps: Maps) -> Places:
    """Return the position of each map's maximum."""
    best = maps.flatten(1).argmax(1)
    return torch.stack([best % maps.shape[2], best // maps.shape[2]], dim=1).double()


def _by_patch(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """Reshape (channels, height, width) to (channels, patches, pixels of a patch)."""
    rows, columns = grid
    parts = pixels.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
    return parts.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)


def _at(maps: Maps, places: Places) -> Float[Tensor, " patches"]:
    """Return bilinearly interpolated scores, one position a map."""
    size = maps.new_tensor([maps.shape[2], maps.shape[1]])
    grid = ((2 * places + 1) / size - 1)[:, None, None]
    found = F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)
    return found[:, 0, 0, 0]
