"""How well maps of scores say where patches go, against true flow.

Places are in patches, column x and row y, whole numbers being the middles of patches.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

MIN_KNOWN = 0.125
"""Share of a patch's pixels whose flow must be known for the patch to count: true flow from laser
scanners is sparse."""
NEAR = 1.0
"""A patch is found if the place named is no further from the true one than this."""
ROUNDING = 1e-9
"""Scores nearer to each other than this are equal."""

Places = Float[Tensor, "patches 2"]
Maps = Float[Tensor, "patches rows columns"]


@dataclass(frozen=True, kw_only=True)
class TruePlaces:
    """The patches that the target shows, and where."""

    tokens: Int[Tensor, " patches"]
    """Number of the patch, row by row."""
    starts: Places
    """In the source."""
    places: Places
    """In the target."""

    def chosen(self, which: Tensor) -> "TruePlaces":
        """Some of them, by number or mask."""
        return TruePlaces(
            tokens=self.tokens[which], starts=self.starts[which], places=self.places[which]
        )

    def distances(self) -> Float[Tensor, " patches"]:
        """How far each goes, in patches."""
        return (self.places - self.starts).norm(dim=1)


def true_places(
    flow: Float[Tensor, "2 height width"], occluded: Tensor | None, grid: tuple[int, int]
) -> TruePlaces:
    """Where patches go by the flow of most of their pixels (the median of each component).

    A patch counts if enough of its flow is known, most of that is not occluded, and it ends inside
    the target.

    Args:
        flow: Pixels to the right and down; infinite where it is not known.
        occluded: Where the target does not show the source (height, width); None if not told.
        grid: Rows and columns of patches, which divide the sides.

    """
    rows, columns = grid
    patch = (flow.shape[2] // columns, flow.shape[1] // rows)
    known = flow.isfinite().all(0)
    seen = known if occluded is None else known & ~occluded
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
    """Which places lie in a grid of rows and columns of patches; what is NaN does not.

    Args:
        places: Any.
        grid: Rows and columns.
        border: How far beyond the middles of the outermost patches the grid reaches.

    """
    rows, columns = grid
    last = places.new_tensor([columns, rows]) - 1 + border
    return ((places >= -border) & (places <= last)).all(1)


def token_measures(
    maps: Maps, truth: TruePlaces, patch_pixels: tuple[float, float]
) -> dict[str, Float[Tensor, " patches"]]:
    """Measures of each patch, NaN where one does not apply.

    Args:
        maps: Scores of all places of the target for each patch.
        truth: Of the same patches.
        patch_pixels: Width and height of a patch.

    Returns:
        `near`: whether the highest score is within one patch of the true place; `near_else`: the
        same of the highest score elsewhere than where the patch was, if scores differ there; `epe`:
        the distance of the highest score from the true place in pixels; `mass_epe`: that of the
        centre of mass of what is above half the highest score; `lean`: whether the true place
        scores higher than the mirrored one (1, 0, or one half if both are equal), where both are
        between the middles of patches; `at_start`: whether the highest score is where the patch
        was.

    """
    maps = maps.double()
    grid = (maps.shape[1], maps.shape[2])
    found = _highest(maps)
    others = maps.flatten(1).scatter(1, truth.tokens[:, None], -torch.inf).view_as(maps)
    rest = maps.flatten(1).scatter(1, truth.tokens[:, None], torch.inf)
    tells = others.flatten(1).amax(1) - rest.amin(1) > ROUNDING
    elsewhere = ((_highest(others) - truth.places).norm(dim=1) <= NEAR).double()
    pixels = maps.new_tensor(patch_pixels)
    mirrored = 2 * truth.starts - truth.places
    both_inside = inside(mirrored, grid, border=0) & inside(truth.places, grid, border=0)
    ahead, behind = (_at(maps, places) for places in (truth.places, mirrored))
    more = ahead - behind
    lean = 0.5 * (1 + more.sign() * (more.abs() > ROUNDING))
    return {
        "near": ((found - truth.places).norm(dim=1) <= NEAR).double(),
        "near_else": torch.where(tells, elsewhere, torch.nan),
        "epe": ((found - truth.places) * pixels).norm(dim=1),
        "mass_epe": ((centre_of_mass(maps) - truth.places) * pixels).norm(dim=1),
        "lean": torch.where(both_inside, lean, torch.nan),
        "at_start": (found == truth.starts).all(1).double(),
    }


def centre_of_mass(maps: Maps) -> Places:
    """Of what is above half the highest score; the highest place if no score is above 0."""
    flat = maps.flatten(1)
    highest = flat.amax(1, keepdim=True)
    weights = (flat - highest.clamp(min=0) / 2).clamp(min=0)
    weights = torch.where(highest > 0, weights, (flat == highest).to(flat))
    weights = (weights / weights.sum(1, keepdim=True)).view_as(maps)
    x = torch.arange(maps.shape[2], device=maps.device)
    y = torch.arange(maps.shape[1], device=maps.device)[:, None]
    return torch.stack([(weights * x).sum((1, 2)), (weights * y).sum((1, 2))], dim=1)


def chance(truth: TruePlaces, grid: tuple[int, int]) -> Float[Tensor, " patches"]:
    """Share of all places that would count as near the true one: what guessing finds."""
    rows, columns = grid
    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    all_places = torch.stack([x, y], dim=2).flatten(0, 1).to(truth.places)
    return (torch.cdist(truth.places, all_places) <= NEAR).double().mean(1)


@dataclass(kw_only=True)
class Tally:
    """Sums of measures over the patches seen so far; NaN does not count."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, measures: Mapping[str, Tensor]) -> None:
        """Count the patches of a pair."""
        for name, values in measures.items():
            real = values[~values.isnan()]
            self.sums[name] = self.sums.get(name, 0.0) + real.sum().item()
            self.counts[name] = self.counts.get(name, 0) + len(real)

    def means(self) -> dict[str, float | None]:
        """Mean of each measure; None where no patch has it."""
        return {
            name: total / self.counts[name] if self.counts[name] else None
            for name, total in self.sums.items()
        }


def _highest(maps: Maps) -> Places:
    best = maps.flatten(1).argmax(1)
    return torch.stack([best % maps.shape[2], best // maps.shape[2]], dim=1).double()


def _by_patch(pixels: Tensor, grid: tuple[int, int]) -> Tensor:
    """(channels, height, width) as (channels, patches, pixels of a patch)."""
    rows, columns = grid
    parts = pixels.unflatten(2, (columns, -1)).unflatten(1, (rows, -1))
    return parts.permute(0, 1, 3, 2, 4).flatten(3).flatten(1, 2)


def _at(maps: Maps, places: Places) -> Float[Tensor, " patches"]:
    """Score at a place between patches, bilinear."""
    size = maps.new_tensor([maps.shape[2], maps.shape[1]])
    grid = ((2 * places + 1) / size - 1)[:, None, None]
    found = F.grid_sample(maps[:, None], grid, padding_mode="border", align_corners=False)
    return found[:, 0, 0, 0]
