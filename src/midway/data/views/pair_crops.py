"""Crops of frames and frame pairs, as in DINO and in the paper (section B.1)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import inf
from typing import Literal

from midway.data.views.boxes import Box, LatticeBox
from midway.data.views.photometric import Photometric
from midway.data.views.spec import ClipSpec, Region, View
from midway.errors import MidwayError

ALWAYS_BLURRED = Photometric(p_blur=1.0)
SOLARISED = Photometric(p_blur=0.1, p_solarise=0.2)
OFTEN_BLURRED = Photometric(p_blur=0.5)
P_FLIP = 0.5


@dataclass(frozen=True, kw_only=True)
class MultiCropConfig:
    """Sizes and areas of DINO's global and local crops.

    Sizes are (height, width) in pixels, areas are fractions, aspect ratios are width / height.
    """

    global_size: tuple[int, int] = (224, 224)
    local_size: tuple[int, int] = (96, 96)
    num_local: int = 8
    """Number of local crops per frame."""
    initial_area: tuple[float, float] | Literal["frame"] = (0.05, 0.2)
    """Area of the initial crop, which contains the global and local crops, as a fraction of the
    frame; "frame" is the whole frame, at any aspect ratio."""
    global_area: tuple[float, float] = (0.4, 1.0)
    """Area of a global crop, as a fraction of the initial crop."""
    local_area: tuple[float, float] = (0.05, 0.4)
    """Area of a local crop, as a fraction of the initial crop."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    distort_colours: bool = True
    """If True, jitter the colours, and blur and solarise the crops."""

    def __post_init__(self) -> None:
        initial = ["initial_area"] if self.initial_area != "frame" else []
        self._check(("global_size", "local_size"), (*initial, "global_area", "local_area"))
        low, high = self.aspect
        if not 0 < low <= high < inf:
            raise MidwayError(f"bad range: aspect is {low}-{high}; give 0 < low <= high")
        if self.num_local < 0:
            raise MidwayError(f"bad count: num_local is {self.num_local}; give 0 or more")

    def spec(self, num_frames: int = 2) -> ClipSpec:
        """Return the region and views of DINO's loss.

        All crops lie in the region "initial": per frame 2 "globals" at the same positions in all
        frames, and `num_local` "locals" that are drawn independently.
        """
        two = self._photometric(ALWAYS_BLURRED, SOLARISED)
        views = {
            "globals": View(
                size=self.global_size,
                region="initial",
                box=self._box(self.global_area),
                count=2,
                aligned=True,
                p_flip=P_FLIP,
                photometric=two,
            ),
            "locals": View(
                size=self.local_size,
                region="initial",
                box=self._box(self.local_area),
                count=self.num_local,
                p_flip=P_FLIP,
                photometric=self._photometric(OFTEN_BLURRED),
            ),
        }
        initial = None if self.initial_area == "frame" else self._box(self.initial_area)
        regions = {"initial": Region(box=initial)}
        return ClipSpec(num_frames=num_frames, regions=regions, views=views)

    def _check(self, sizes: Sequence[str], areas: Sequence[str]) -> None:
        for name in sizes:
            if min(getattr(self, name)) < 1:
                raise MidwayError(f"crop without pixels: {name}; give a height and width above 0")
        for name in areas:
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise MidwayError(f"bad range: {name} is {low}-{high}; give 0 < low <= high <= 1")

    def _box(self, area: tuple[float, float]) -> Box:
        return Box(area=area, aspect=self.aspect)

    def _photometric(self, *recipes: Photometric) -> tuple[Photometric, ...]:
        return recipes if self.distort_colours else ()


@dataclass(frozen=True, kw_only=True)
class ViewsConfig(MultiCropConfig):
    """Sizes and areas of the crops of a pair: DINO's, and the motion crop of the dense loss."""

    motion_size: tuple[int, int] = (224, 224)
    motion_area: tuple[float, float] = (0.2, 0.4)
    """Area of the motion region, as a fraction of the frame; the motion crop is all of it, or
    `motion_parts` of it."""
    motion_parts: tuple[int, int] = (1, 1)
    """Parts along each side of the motion crop and of its region. With (6, 8), the crops of the two
    frames are up to two sixths of their side apart in each direction, which is two patches for a
    side of six patches, even in a still frame. With (1, 1), both crops are the whole region."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self._check(("motion_size",), ("motion_area",))
        self._part()

    def spec(self, num_frames: int = 2) -> ClipSpec:
        """Return the regions and views of all frames, with one "motion" crop per frame."""
        crops = super().spec(num_frames)
        motion = View(
            size=self.motion_size,
            region="motion",
            box=self._part(),
            aligned=self._part() is None,
            photometric=self._photometric(ALWAYS_BLURRED, SOLARISED),
        )
        # Random numbers are drawn in this order.
        return replace(
            crops,
            regions={"motion": Region(box=self._box(self.motion_area)), **crops.regions},
            views={"motion": motion, **crops.views},
        )

    def _part(self) -> LatticeBox | None:
        covered, parts = self.motion_parts
        if not 1 <= covered <= parts:
            raise MidwayError(f"motion_parts is {self.motion_parts}; give 1 <= first <= second")
        return None if covered == parts else LatticeBox(covered=covered, parts=parts)
