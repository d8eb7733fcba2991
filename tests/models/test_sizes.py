"""Sizes that no network has are refused by name before anything is built."""

import math
from dataclasses import replace

import pytest

from midway.errors import MidwayError
from tests.models.networks import DYNAMICS, ENCODER, HEAD


@pytest.mark.parametrize(
    ("config", "change"),
    [
        *((ENCODER, {name: 0}) for name in ("heads", "patch_size", "width", "depth")),
        (ENCODER, {"heads": -2}),
        (ENCODER, {"num_registers": -1}),
        (ENCODER, {"image_size": (0, 32)}),
        *((ENCODER, {"drop_path": value}) for value in (-0.1, 1.0, math.nan)),
        *(
            (DYNAMICS, {name: 0})
            for name in (
                "midway_width",
                "midway_depth",
                "midway_heads",
                "num_latents",
                "backward_heads",
                "forward_depth",
                "forward_heads",
            )
        ),
        *((DYNAMICS, {"levels": levels}) for levels in ((), (0, 1), (2, 1), (1, 1))),
        *((HEAD, {name: 0}) for name in ("hidden", "bottleneck", "num_prototypes")),
    ],
)
def test_a_size_out_of_bounds_is_refused_by_name(config: object, change: dict) -> None:
    (name,) = change
    with pytest.raises(MidwayError, match=name):
        replace(config, **change)


def test_the_smallest_sizes_are_allowed() -> None:
    encoder = replace(ENCODER, image_size=(1, 1), patch_size=1, width=1, depth=1, heads=1)
    dynamics = replace(DYNAMICS, midway_width=1, midway_heads=1, num_latents=1, forward_depth=1)
    head = replace(HEAD, hidden=1, bottleneck=1, num_prototypes=1)
    assert (encoder.width, dynamics.midway_width, head.hidden) == (1, 1, 1)
