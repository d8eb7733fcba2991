"""The paper's crops of a pair of frames (section B.1), for methods that train on pairs."""

from dataclasses import dataclass

from midway.data.views.boxes import Box
from midway.data.views.photometric import Photometric
from midway.data.views.spec import ClipSpec, Region, View
from midway.errors import MidwayError

ALWAYS_BLURRED = Photometric(p_blur=1.0)
SOLARISED = Photometric(p_blur=0.1, p_solarise=0.2)
OFTEN_BLURRED = Photometric(p_blur=0.5)
P_FLIP = 0.5


@dataclass(frozen=True, kw_only=True)
class ViewsConfig:
    """Sizes (height, width) in pixels, areas as shares, aspects as width over height."""

    motion_size: tuple[int, int] = (224, 224)
    global_size: tuple[int, int] = (224, 224)
    local_size: tuple[int, int] = (96, 96)
    num_local: int = 8
    """Local crops of each frame."""
    motion_area: tuple[float, float] = (0.2, 0.4)
    initial_area: tuple[float, float] = (0.05, 0.2)
    """Share of the frame from which the global and local crops are taken."""
    global_area: tuple[float, float] = (0.4, 1.0)
    """Share of the initial crop."""
    local_area: tuple[float, float] = (0.05, 0.4)
    """Share of the initial crop."""
    aspect: tuple[float, float] = (3 / 4, 4 / 3)
    distort_colours: bool = True
    """Whether colours are jittered, and crops blurred and solarised."""

    def __post_init__(self) -> None:
        for name in ("motion_size", "global_size", "local_size"):
            if min(getattr(self, name)) < 1:
                raise MidwayError(f"crop without pixels: {name}; give a height and width above 0")
        for name in ("motion_area", "initial_area", "global_area", "local_area"):
            low, high = getattr(self, name)
            if not 0 < low <= high <= 1:
                raise MidwayError(f"bad range: {name} is {low}-{high}; give 0 < low <= high <= 1")
        low, high = self.aspect
        if not 0 < low <= high:
            raise MidwayError(f"bad range: aspect is {low}-{high}; give 0 < low <= high")
        if self.num_local < 0:
            raise MidwayError(f"bad count: num_local is {self.num_local}; give 0 or more")

    def spec(self) -> ClipSpec:
        """Return the regions and views of source and target.

        "motion" is one crop at the same place in both frames, for the dense term. All crops of the
        DINO term lie in the "initial" region: 2 "globals" a frame at the same places in both
        frames, and `num_local` "locals" a frame, each on its own.
        """
        two = self._photometric(ALWAYS_BLURRED, SOLARISED)
        views = {
            "motion": View(size=self.motion_size, region="motion", aligned=True, photometric=two),
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
        regions = {
            "motion": Region(box=self._box(self.motion_area)),
            "initial": Region(box=self._box(self.initial_area)),
        }
        return ClipSpec(num_frames=2, regions=regions, views=views)

    def _box(self, area: tuple[float, float]) -> Box:
        return Box(area=area, aspect=self.aspect)

    def _photometric(self, *recipes: Photometric) -> tuple[Photometric, ...]:
        return recipes if self.distort_colours else ()
