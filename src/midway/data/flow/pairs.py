"""Flow pairs: the files of a pair, and a function that reads them."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from midway.data.flow.checks import FloatFlow
from midway.data.flow.files import read_flow
from midway.data.flow.png import read_vkitti2
from midway.data.images import read_image
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowPair:
    """Files of two frames and of the flow between them."""

    source: str
    target: str
    flow: str
    """File of the flow from source to target."""
    sequence: str
    """Name of the scene, drive or folder, for scores by sequence."""
    rendering: str = ""
    """`clean` or `final`, in datasets with two renderings."""
    occlusions: str = ""
    """Mask of occluded source pixels, in datasets that provide it."""
    is_vkitti2: bool = False
    """If True, a `.png` of flow is encoded as in Virtual KITTI 2, not as in KITTI."""
    flow_stride: int = 1
    """Ratio of flow to image resolution per axis: 2 in Spring."""


@dataclass(frozen=True, kw_only=True, eq=False)
class FlowExample:
    """Pair in memory."""

    source: NDArray[np.uint8]
    """RGB (height, width, 3)."""
    target: NDArray[np.uint8]
    """RGB (height, width, 3)."""
    flow: FloatFlow
    """Displacement to the right and down in pixels (height, width, 2); infinite where unknown."""
    occluded: NDArray[np.bool_] | None
    """True where source pixels are occluded in the target (height, width); None if unknown."""
    fine: FloatFlow | None = None
    """Flow at the resolution of its file, if that is a multiple of the images' resolution."""


def load_pair(pair: FlowPair) -> FlowExample:
    """Read the images, flow and occlusion of a pair.

    Raises:
        MidwayError: A file is damaged, or sizes differ.
        OSError: A file is missing.
    """
    source, target = read_image(pair.source), read_image(pair.target)
    fine, stride = read_pair_flow(pair), pair.flow_stride
    flow = fine[::stride, ::stride]
    occluded = read_mask(pair.occlusions) if pair.occlusions else None
    shapes = {pair.source: source.shape, pair.target: target.shape, pair.flow: flow.shape}
    if occluded is not None:
        shapes[pair.occlusions] = occluded.shape
    for name, shape in shapes.items():
        if shape[:2] != source.shape[:2]:
            raise MidwayError(
                f"sizes of a pair differ: {name} has {shape[0]}x{shape[1]} pixels, {pair.source} "
                f"{source.shape[0]}x{source.shape[1]}; fetch the files again or remove the pair"
            )
    if fine.shape[0] != stride * len(flow) or fine.shape[1] != stride * flow.shape[1]:
        raise MidwayError(
            f"{pair.flow}: {fine.shape[0]}x{fine.shape[1]} pixels, no multiple of {stride}; fetch "
            "it again"
        )
    return FlowExample(
        source=source,
        target=target,
        flow=flow,
        occluded=occluded,
        fine=fine if stride > 1 else None,
    )


def cut_squares(example: FlowExample, side: int = 0) -> Iterator[FlowExample]:
    """Cut a pair into square windows, which overlap by half or more along the axes they are cut on.

    The windows are evenly spaced, from one end to the other; flow keeps its units and may point out
    of a window. `fine` is None.

    Args:
        example: Pair with flow.
        side: Side of the windows in pixels, at most the shorter side of the pair, which 0 stands
            for.
    """
    shorter = min(example.flow.shape[:2])
    side = min(side or shorter, shorter)
    for rows, columns in product(*(_windows(length, side) for length in example.flow.shape[:2])):
        occluded = example.occluded
        yield replace(
            example,
            source=example.source[rows, columns],
            target=example.target[rows, columns],
            flow=example.flow[rows, columns],
            occluded=None if occluded is None else occluded[rows, columns],
            fine=None,
        )


def _windows(length: int, side: int) -> list[slice]:
    number = 1 + math.ceil(2 * (length - side) / side)
    starts = np.linspace(0, length - side, number).round().astype(int).tolist()
    return [slice(start, start + side) for start in starts]


def read_pair_flow(pair: FlowPair) -> FloatFlow:
    """Read the flow of a pair at the resolution of its file.

    Raises:
        MidwayError: The file is damaged.
        OSError: The file is missing.
    """
    return read_vkitti2(pair.flow) if pair.is_vkitti2 else read_flow(pair.flow)


def read_mask(path: str) -> NDArray[np.bool_]:
    """Read an 8-bit mask of Sintel (`occlusions`, `invalid`), shape (height, width).

    Raises:
        MidwayError: The file is missing or not an image.
    """
    return read_image(path)[..., 0] > 127
