"""Specification of a clip's views (`ClipSpec`), and their random parameters.

A sample is a few frames of one clip. A *region* is a window cut out of all frames at the same
position, on the host; the rest of the frames is never transferred. A *view* is a stack of crops of
each frame's region, rendered on the device (`midway.data.views.render`). `draw_views` makes all
random decisions about a sample, in NumPy, so that workers need not import torch.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from midway.data.views.boxes import AnyBox, draw_boxes
from midway.data.views.photometric import ColourParameters, Photometric, draw_colour
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class Region:
    """Window at the same position in all frames of a sample."""

    box: AnyBox | None = None
    """Random box of the frame; None takes the whole frame."""
    short_side: int | None = None
    """Maximum length of the shorter side in pixels; larger windows are shrunk on the host. None
    keeps the size."""


@dataclass(frozen=True, kw_only=True)
class View:
    """Stack of crops of each frame, rendered to one size."""

    size: tuple[int, int]
    """Height and width in pixels."""
    region: str
    """Name of the region that contains the crops."""
    box: AnyBox | None = None
    """Random box of the region; None takes the whole region."""
    count: int = 1
    """Number of crops per frame."""
    aligned: bool = False
    """If True, box and flip are the same in all frames."""
    p_flip: float = 0.0
    """Probability of a horizontal flip."""
    photometric: tuple[Photometric, ...] = ()
    """Augmentations, assigned cyclically to the crops, frame by frame; empty keeps the colours."""


@dataclass(frozen=True, kw_only=True)
class ClipSpec:
    """Specification of a method's samples: frames, regions, views and signals.

    Raises:
        MidwayError: A view has no pixels or an undeclared region, or a count or probability is out
            of range.

    """

    num_frames: int = 1
    regions: Mapping[str, Region] = field(default_factory=dict)
    views: Mapping[str, View] = field(default_factory=dict)
    signals: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Shape of each recorded signal at a frame by name, such as actions."""

    def __post_init__(self) -> None:
        if self.num_frames < 1:
            raise MidwayError(f"views: num_frames = {self.num_frames}; give 1 or more")
        for name, region in self.regions.items():
            if region.short_side is not None and region.short_side < 1:
                raise MidwayError(f"views: {name} has no short side; give 1 pixel or more")
        for name, view in self.views.items():
            if view.region not in self.regions:
                known = ", ".join(self.regions) or "none"
                raise MidwayError(f"views: {name} has no region '{view.region}'; there are {known}")
            if min(view.size) < 1:
                raise MidwayError(f"views: {name} has no pixels; give a height and width above 0")
            if view.count < 0 or not 0 <= view.p_flip <= 1:
                raise MidwayError(
                    f"views: {name} has count = {view.count}, p_flip = {view.p_flip}; give a count "
                    "of 0 or more, and p_flip in [0, 1]"
                )

    def num_crops(self, name: str) -> int:
        """Return the number of crops of a view over all frames."""
        return self.num_frames * self.views[name].count

    @property
    def slices(self) -> dict[str, slice]:
        """Slice of each view along the crops of `ViewParameters`."""
        ends = np.cumsum([0, *map(self.num_crops, self.views)]).tolist()
        places = zip(self.views, ends[:-1], ends[1:], strict=True)
        return {name: slice(start, end) for name, start, end in places}


@dataclass(frozen=True, kw_only=True)
class ViewParameters:
    """Random parameters of the views of one sample, or of a batch of B samples.

    The V crops are ordered by view, and by frame within a view.
    """

    windows: NDArray[np.int64]
    """Top, left, height and width of the R regions in pixels of the frames, shape (R, 4) or
    (R, B, 4)."""
    boxes: NDArray[np.int64]
    """Top, left, height and width of the V crops in pixels of their regions, after shrinking; shape
    (V, 4) or (V, B, 4)."""
    flip: NDArray[np.bool_]
    """True where a crop is flipped horizontally, shape (V,) or (V, B)."""
    colour: ColourParameters
    """Photometric parameters, with the leading axes (V,) or (V, B)."""


def draw_views(spec: ClipSpec, height: int, width: int, rng: np.random.Generator) -> ViewParameters:
    """Draw the random parameters of one sample's views.

    Args:
        spec: Specification of the regions and views.
        height: Height of all frames in pixels.
        width: Width of all frames in pixels.
        rng: Source of all random numbers.

    Returns:
        Parameters without a batch axis.

    """
    frame_sizes = [(height, width)] * len(spec.regions)
    windows = _draw(frame_sizes, [region.box for region in spec.regions.values()], rng)  # (R, 4)
    sizes = {
        name: _shrunk(region, (int(rows), int(columns)))
        for (name, region), (_, _, rows, columns) in zip(spec.regions.items(), windows, strict=True)
    }
    # Aligned views are drawn for one frame and repeated in the others: D drawn boxes, D <= V.
    drawn = {
        name: view.count if view.aligned else spec.num_crops(name)
        for name, view in spec.views.items()
    }
    each = [view for name, view in spec.views.items() for _ in range(drawn[name])]
    boxes = _draw([sizes[view.region] for view in each], [view.box for view in each], rng)  # (D, 4)
    flip = np.zeros(len(each), np.bool_)
    flippable = [place for place, view in enumerate(each) if view.p_flip]
    flip[flippable] = rng.random(len(flippable)) < [each[place].p_flip for place in flippable]
    rows = _repeated(spec, drawn)
    recipes = [
        view.photometric[crop % len(view.photometric)] if view.photometric else None
        for name, view in spec.views.items()
        for crop in range(spec.num_crops(name))
    ]
    return ViewParameters(
        windows=windows, boxes=boxes[rows], flip=flip[rows], colour=draw_colour(recipes, rng)
    )


def stack_views(parameters: Sequence[ViewParameters]) -> ViewParameters:
    """Stack the parameters of the samples of a batch along a new second axis."""
    return ViewParameters(
        windows=np.stack([each.windows for each in parameters], axis=1),
        boxes=np.stack([each.boxes for each in parameters], axis=1),
        flip=np.stack([each.flip for each in parameters], axis=1),
        colour=ColourParameters.stack([each.colour for each in parameters]),
    )


def cut_regions(
    spec: ClipSpec, parameters: ViewParameters, frames: Sequence[NDArray[np.uint8]]
) -> dict[str, NDArray[np.uint8]]:
    """Cut the regions out of a sample's frames, and shrink those that exceed their `short_side`.

    Args:
        spec: Specification that the parameters were drawn with.
        parameters: Parameters of the sample from `draw_views`.
        frames: RGB images of one shape (H, W, 3).

    Returns:
        Copied pixels of each region by name, uint8 of shape (frames, height, width, 3).

    """
    cut = {}
    for (name, region), window in zip(spec.regions.items(), parameters.windows, strict=True):
        top, left, rows, columns = window.tolist()
        pixels = [frame[top : top + rows, left : left + columns] for frame in frames]
        if (size := _shrunk(region, (rows, columns))) != (rows, columns):
            pixels = [_resize(each, size) for each in pixels]
        cut[name] = np.stack(pixels)
    return cut


def _draw(
    sizes: Sequence[tuple[int, int]],
    boxes: Sequence[AnyBox | None],
    rng: np.random.Generator,
) -> NDArray[np.int64]:
    """Return one box in each parent; None is the whole parent and draws no random number."""
    found = np.array([(0, 0, *size) for size in sizes], dtype=np.int64).reshape(-1, 4)
    random = [(place, box) for place, box in enumerate(boxes) if box is not None]
    if random:
        places = [place for place, _ in random]
        found[places] = draw_boxes(found[places, 2:], [box for _, box in random], rng)
    return found


def _repeated(spec: ClipSpec, drawn: Mapping[str, int]) -> list[int]:
    """Return the drawn row of each crop; an aligned view repeats its rows in every frame."""
    rows: list[int] = []
    start = 0
    for name, view in spec.views.items():
        own = list(range(start, start + drawn[name]))
        rows += own * spec.num_frames if view.aligned else own
        start += drawn[name]
    return rows


def _shrunk(region: Region, size: tuple[int, int]) -> tuple[int, int]:
    short_side = min(size)
    if region.short_side is None or short_side <= region.short_side:
        return size
    height, width = (round(side * region.short_side / short_side) for side in size)
    return height, width


def _resize(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    image = Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(image)
