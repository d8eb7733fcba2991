"""Other looks for a synthetic world that moves as it did."""

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from midway.data.synthetic.textures import BACKDROPS, TEXTURES, Backdrop, Texture

if TYPE_CHECKING:
    from midway.data.synthetic.world import WorldConfig, WorldObject


def other_looks(
    config: "WorldConfig", things: Sequence["WorldObject"], seed: int
) -> tuple[Backdrop, list["WorldObject"]]:
    """Backdrop and objects with colours, textures and classes drawn anew.

    Outlines stay: with motion they decide what is seen where, and so the flow.

    Args:
        config: Of the world.
        things: Its objects.
        seed: Of the looks alone.

    """
    # A stream of its own: the looks of seed 3 are not those that world 3 has.
    rng = np.random.default_rng([seed, len(things)])
    backdrop = BACKDROPS[config.backdrop].random(
        rng,
        saturation=config.saturation,
        periods=tuple(share * config.height for share in config.backdrop_periods),
    )
    families = list(TEXTURES)
    dressed = []
    for thing in things:
        class_id = int(rng.integers(len(families)))
        texture = Texture.random(
            rng,
            families[class_id],
            period_pixels=config.texture_period_pixels,
            saturation=config.saturation,
            size=2 * thing.outline.half_width,
        )
        dressed.append(replace(thing, texture=texture, class_id=1 + class_id))
    return backdrop, dressed
