"""Views of nine methods of pretraining, declared at a quarter of their published sizes."""

from dataclasses import replace

from midway.data.views.boxes import Box
from midway.data.views.pair_crops import ALWAYS_BLURRED, OFTEN_BLURRED, SOLARISED, ViewsConfig
from midway.data.views.photometric import Photometric
from midway.data.views.spec import ClipSpec, Region, View

SIZE, SMALL = (56, 56), (24, 24)
TWO = (ALWAYS_BLURRED, SOLARISED)

MIDWAY = ViewsConfig(motion_size=SIZE, global_size=SIZE, local_size=SMALL).spec()
DINO = ClipSpec(
    num_frames=2,
    regions={"initial": MIDWAY.regions["initial"]},
    views={name: MIDWAY.views[name] for name in ("globals", "locals")},
)
IBOT = ClipSpec(
    regions={"frame": Region()},
    views={
        "globals": View(
            size=SIZE,
            region="frame",
            box=Box(area=(0.25, 1.0)),
            count=2,
            p_flip=0.5,
            photometric=TWO,
        ),
        "locals": View(
            size=SMALL,
            region="frame",
            box=Box(area=(0.05, 0.25)),
            count=10,
            p_flip=0.5,
            photometric=(OFTEN_BLURRED,),
        ),
    },
)
MAE = ClipSpec(
    regions={"crop": Region(box=Box(area=(0.2, 1.0)))},
    views={"image": View(size=SIZE, region="crop", p_flip=0.5)},
)
VIDEOMAE = ClipSpec(
    num_frames=16,
    regions={"crop": Region(box=Box(area=(0.44, 1.0), aspect=(0.75, 1.33)))},
    views={"clip": View(size=SIZE, region="crop", aligned=True)},
)
CROCO = ClipSpec(
    num_frames=2,
    regions={"common": Region(box=Box(area=(0.2, 0.5), aspect=(1, 1)))},
    views={
        "pair": View(
            size=SIZE,
            region="common",
            box=Box(area=(0.7, 0.9), aspect=(1, 1)),
            photometric=(Photometric(jitter=(0.4, 0.4, 0.4, 0.0), p_jitter=1.0, p_grey=0.0),),
        )
    },
)
DORA = ClipSpec(
    num_frames=8,
    regions={"clip": Region(box=Box(area=(0.2, 1.0)))},
    views={
        "global": View(
            size=SIZE,
            region="clip",
            box=Box(area=(0.4, 1.0)),
            aligned=True,
            p_flip=0.5,
            photometric=(Photometric(p_blur=0.1),),
        ),
        "locals": View(
            size=(28, 28),
            region="clip",
            box=Box(area=(0.05, 0.4)),
            count=6,
            photometric=(OFTEN_BLURRED,),
        ),
    },
)
_FRAMES = View(size=(64, 128), region="frame", aligned=True)
POODLE = ClipSpec(
    num_frames=2,
    regions={"frame": Region(box=Box(area=(0.3, 0.8), aspect=(1.9, 2.1)))},
    views={
        "plain": _FRAMES,
        "frames": replace(
            _FRAMES, photometric=(Photometric(jitter=(0.8, 0.8, 0.8, 0.2), p_blur=0.5),)
        ),
    },
)
DYNAMO = replace(MIDWAY, signals={"action": (7,)})
METHODS = {
    "midway": MIDWAY,
    "dino": DINO,
    "ibot": IBOT,
    "mae": MAE,
    "videomae": VIDEOMAE,
    "croco": CROCO,
    "dora": DORA,
    "poodle": POODLE,
    "dynamo": DYNAMO,
}
