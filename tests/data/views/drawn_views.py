"""Random views of noise frames, and their regions."""

import dataclasses

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from midway.data.views.pair_crops import ViewsConfig
from midway.data.views.photometric import ColourParameters
from midway.data.views.render import stack_windows
from midway.data.views.spec import ClipSpec, ViewParameters, cut_regions, draw_views, stack_views

CONFIG = ViewsConfig(motion_size=(48, 40), global_size=(32, 36), local_size=(16, 20), num_local=3)
SPEC = CONFIG.spec()
MOTION, GLOBALS, LOCALS = slice(0, 2), slice(2, 6), slice(6, None)
Frames = list[tuple[NDArray[np.uint8], ...]]


def draw_each(spec: ClipSpec, height: int, width: int, num_draws: int) -> list[ViewParameters]:
    rng = np.random.default_rng(0)
    return [draw_views(spec, height, width, rng) for _ in range(num_draws)]


def draw_many(spec: ClipSpec, height: int, width: int, num_draws: int) -> ViewParameters:
    return stack_views(draw_each(spec, height, width, num_draws))


def noise_frames(num_samples: int, height: int, width: int, num_frames: int = 2) -> Frames:
    rng = np.random.default_rng(1)
    shape = (num_samples, num_frames, height, width, 3)
    return [tuple(frames) for frames in rng.integers(0, 256, shape, dtype=np.uint8)]


def regions_of(
    drawn: list[ViewParameters], frames: Frames, spec: ClipSpec = SPEC
) -> dict[str, Tensor]:
    cuts = [cut_regions(spec, each, sample) for each, sample in zip(drawn, frames, strict=True)]
    return {name: stack_windows([cut[name] for cut in cuts]) for name in spec.regions}


def arrays_of(parameters: ViewParameters) -> list[NDArray]:
    colour = [getattr(parameters.colour, f.name) for f in dataclasses.fields(ColourParameters)]
    return [parameters.windows, parameters.boxes, parameters.flip, *colour]


def assert_same_parameters(first: ViewParameters, second: ViewParameters) -> None:
    for one, other in zip(arrays_of(first), arrays_of(second), strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)
