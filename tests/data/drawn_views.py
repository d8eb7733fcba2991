"""Views drawn for frames of noise, and the windows that they lie in."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from midway.data.distortion import ColourParameters
from midway.data.render import stack_windows
from midway.data.views import ViewParameters, ViewsConfig, cut_windows, draw_views, stack_views

CONFIG = ViewsConfig(motion_size=(48, 40), global_size=(32, 36), local_size=(16, 20), num_local=3)
MOTION, GLOBALS, LOCALS = slice(0, 2), slice(2, 6), slice(6, None)
Frames = list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]


def draw_each(config: ViewsConfig, height: int, width: int, num_draws: int) -> list[ViewParameters]:
    rng = np.random.default_rng(0)
    return [draw_views(config, height, width, rng) for _ in range(num_draws)]


def draw_many(config: ViewsConfig, height: int, width: int, num_draws: int) -> ViewParameters:
    return stack_views(draw_each(config, height, width, num_draws))


def noise_frames(num_pairs: int, height: int, width: int) -> Frames:
    rng = np.random.default_rng(1)
    shape = (num_pairs, 2, height, width, 3)
    return [(pair[0], pair[1]) for pair in rng.integers(0, 256, shape, dtype=np.uint8)]


def windows_of(drawn: list[ViewParameters], frames: Frames) -> tuple[Tensor, Tensor]:
    cuts = [cut_windows(each, *pair) for each, pair in zip(drawn, frames, strict=True)]
    motion, initial = zip(*cuts, strict=True)
    return stack_windows(motion), stack_windows(initial)


def arrays_of(parameters: ViewParameters) -> list[NDArray]:
    colour = [getattr(parameters.colour, f.name) for f in dataclasses.fields(ColourParameters)]
    return [parameters.windows, parameters.boxes, parameters.flip, *colour]


def assert_same_parameters(first: ViewParameters, second: ViewParameters) -> None:
    for one, other in zip(arrays_of(first), arrays_of(second), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
