"""Pairs of crops round the same scene points in two frames, centred by flow (PooDLe)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from midway.errors import MidwayError
from midway.nn.warp import Flow, Size, follow, is_inside, sample

TRIES = 6
"""Points drawn in each cell until one has an end point inside the target."""
Boxes = Float[Tensor, "batch crops 4"]
"""Centre x and y, width and height in pixels of the image."""


@dataclass(frozen=True, kw_only=True)
class SubcropConfig:
    """Number, sizes and places of the crops.

    Raises:
        MidwayError: A range is empty or out of bounds.

    """

    count: int = 6
    """Crops of each frame."""
    size: Size = (192, 192)
    """Height and width in pixels after resizing."""
    area: tuple[float, float] = (0.05, 0.3)
    """Range of the area in the source, as a fraction of the image. In the target, it lies between
    the crop of the source and the upper limit."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    """Range of width / height."""
    jitter: float = 0.1
    """Largest displacement of a crop of the target, as a fraction of the sides of the image."""

    def __post_init__(self) -> None:
        if self.count < 1 or min(self.size) < 1:
            raise MidwayError("subcrops: count and size must be 1 or more; change the others")
        if not 0 < self.area[0] <= self.area[1] <= 1:
            raise MidwayError(f"subcrops: area is {self.area}; give 0 < low <= high <= 1")
        if not 0 < self.aspect[0] <= self.aspect[1] < math.inf:
            raise MidwayError(f"subcrops: aspect is {self.aspect}; give 0 < low <= high")
        if not 0 <= self.jitter <= 1:
            raise MidwayError(f"subcrops: jitter is {self.jitter}; give 0 to 1")

    def cell(self, size: Size) -> int:
        """Return the side of the cells in which the centres are drawn, in pixels."""
        return round(math.sqrt(sum(self.area) / 2) * min(size))

    def check_fits(self, size: Size) -> None:
        """Raise an error if an image has fewer cells than crops.

        Raises:
            MidwayError: Too many crops for images of this size.

        """
        cells = math.prod(math.ceil(side / self.cell(size)) for side in size)
        if self.count > cells:
            raise MidwayError(
                f"subcrops: count = {self.count}, but an image has {cells} cells to draw their "
                f"centres in; give {cells} or less, or a smaller area"
            )


@dataclass(frozen=True, kw_only=True, eq=False)
class Subcrops:
    """Boxes of the crops of a batch."""

    source: Boxes
    target: Boxes
    moved: Bool[Tensor, "batch crops"]
    """False where no point with an end point in the target was found: both crops are then of the
    source."""


def draw_subcrops(config: SubcropConfig, flow: Flow) -> Subcrops:
    """Draw crops of source and target by torch's global generator.

    Centres of the source lie in different cells of a grid. Those of the target are the end points
    of their flow, with jitter. Boxes are shifted so that they lie inside of the image.

    Args:
        config: Number, sizes and places.
        flow: From source to target in pixels, finite.

    """
    batch, size = len(flow), (flow.shape[2], flow.shape[3])
    start = _centres(config, batch, size, flow.device)  # (batch, tries, crops, 2)
    end = follow(start, flow, size)
    inside = is_inside(end, size)  # (batch, tries, crops)
    # The first point that stays inside; any if there is none.
    chosen = inside.int().argmax(1, keepdim=True)[..., None].expand(-1, -1, -1, 2)
    start, end = (points.gather(1, chosen)[:, 0] for points in (start, end))  # (batch, crops, 2)
    moved = inside.any(1)
    low, high = config.area
    share = torch.rand(2, batch, config.count, device=flow.device)
    area = low + (high - low) * share[0]
    wider = area + (high - area) * share[1]
    jitter = config.jitter * (2 * torch.rand_like(end) - 1) * end.new_tensor(size[::-1])
    there = torch.where(moved[..., None], end, start) + jitter
    return Subcrops(
        source=_boxes(config, start, area, size),
        target=_boxes(config, there, wider, size),
        moved=moved,
    )


def cut(
    images: Float[Tensor, "batch channels height width"], boxes: Boxes, size: Size
) -> Float[Tensor, "batch crops channels rows columns"]:
    """Cut boxes out of images and resize them bilinearly to one size."""
    rows, columns = size
    # Centres of the new pixels in each box, from -1/2 at its left or upper edge to 1/2.
    across, down = ((torch.arange(n, device=boxes.device) + 0.5) / n - 0.5 for n in (columns, rows))
    x, y, width, height = boxes[..., None, None].unbind(2)  # (batch, crops, 1, 1) each
    grid = torch.broadcast_tensors(x + width * across, y + height * down[:, None])
    points = torch.stack(grid, dim=-1).flatten(1, 2)  # (batch, crops * rows, columns, 2)
    crops = sample(images, points, (images.shape[2], images.shape[3]))
    return crops.unflatten(2, (-1, rows)).transpose(1, 2)


def _centres(config: SubcropConfig, batch: int, size: Size, device: torch.device) -> Tensor:
    """Draw points in different cells, shape (batch, tries, crops, 2)."""
    cell, (height, width) = config.cell(size), size
    columns, rows = math.ceil(width / cell), math.ceil(height / cell)
    number = torch.rand(batch, 1, rows * columns, device=device).argsort(-1)[..., : config.count]
    corner = torch.stack([number % columns, number // columns], dim=-1) * cell
    # The last cells of a row or column end at the border.
    edge = corner.new_tensor([width, height])
    extent = (edge - corner).clamp(max=cell)
    place = torch.rand(batch, TRIES, config.count, 2, device=device)
    return corner + place * extent - 0.5


def _boxes(config: SubcropConfig, centres: Tensor, area: Tensor, size: Size) -> Boxes:
    """Draw the aspect ratio of boxes of an area, and shift them into the image."""
    low, high = (math.log(limit) for limit in config.aspect)
    root = torch.exp(0.5 * (low + (high - low) * torch.rand_like(area)))
    side = (area * size[0] * size[1]).sqrt()
    extent = torch.stack([side * root, side / root], dim=-1)  # (batch, crops, 2)
    limit = centres.new_tensor(size[::-1])
    extent = torch.minimum(extent, limit)
    centres = torch.maximum(centres, extent / 2 - 0.5)
    centres = torch.minimum(centres, limit - 0.5 - extent / 2)
    return torch.cat([centres, extent], dim=-1)
