"""Arms of the miniature benchmark: each is a configuration of a method, or needs no method."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

from midway.data.views.pair_crops import MultiCropConfig, ViewsConfig
from midway.methods.base import MethodConfig
from midway.methods.croco import CrocoConfig
from midway.methods.dino import DinoConfig
from midway.methods.dora import DoraConfig
from midway.methods.dynamo import DynamoConfig
from midway.methods.ibot import IbotConfig
from midway.methods.mae import MaeConfig
from midway.methods.midway import MidwayConfig
from midway.methods.poodle import PoodleConfig
from midway.methods.videomae import VideoMaeConfig
from midway.models.dino import HeadConfig
from midway.models.encoders.poodle import SpatialDecoderConfig
from midway.nn.losses.dino import TargetsConfig, Terms
from midway.nn.subcrops import SubcropConfig
from midway.paper.miniature.protocol import Protocol, Trial

TERMS: Terms = "cross"
"""Crops of a pair that are compared: of different frames only, as those of one share paint too."""
MANY, FEW = 5, 3
"""Number of seeds of the arms that the paper's claim compares, and of the others."""

Build = Callable[[Protocol, Trial], MethodConfig]


@dataclass(frozen=True, kw_only=True)
class Arm:
    """A row of the tables."""

    name: str
    """Name on the command line and in the records."""
    title: str
    num_seeds: int = FEW
    kind: Literal["method", "untrained", "filters", "pixels", "still", "labels"] = "method"
    """Pretraining by a method or by labels; an encoder with fresh weights; features that need no
    training; or no motion, without any features."""
    build: Build | None = None
    """Builder of the method's configuration, for arms of kind "method"."""
    chooses_as: str = ""
    """Arm whose trials select the settings of this one; if empty, its own trials do."""
    pairs: Literal["near", "gap-0", "shuffled"] = "near"
    """Frames of a sample: of one clip, one frame repeated, or each frame from another clip."""

    @property
    def is_trained(self) -> bool:
        """True if the arm has a learning rate."""
        return self.kind in ("method", "labels")

    @property
    def chooser(self) -> str:
        """Name of the arm whose trials choose the settings of this one."""
        return self.chooses_as or self.name


def crops(protocol: Protocol) -> dict[str, Any]:
    """Return the fields of DINO's crops. Paint changes them as much as a distortion would."""
    side = (protocol.window_side, protocol.window_side)
    return {
        "global_size": side,
        "local_size": side,
        "num_local": 0,
        "initial_area": protocol.window_area,
        "global_area": protocol.global_area,
        "distort_colours": False,
    }


def pair_views(protocol: Protocol) -> ViewsConfig:
    """Return DINO's crops and the motion crop."""
    motion = {"motion_size": protocol.encoder.image_size, "motion_area": protocol.crop_area}
    return ViewsConfig(**crops(protocol), **motion)


def teacher(trial: Trial) -> dict[str, Any]:
    """Return the fields of an EMA teacher whose momentum rises over the whole run.

    Its head keeps its initial weights, so that the targets do not become alike before the encoder
    has learnt anything.
    """
    return {
        "teacher_momentum": trial.momentum,
        "momentum_clock": "steps",
        "head_momentum": 1.0,
        "frozen_last_layer_epochs": 0.0,
        "targets": TargetsConfig(
            teacher_temperature=trial.temperature,
            initial_teacher_temperature=trial.temperature,
            # With a centre of 0, the first targets would be nearly the same for all crops.
            center_start="first_batch",
        ),
    }


def dino(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return DINO on pairs."""
    fields = teacher(trial) | {"views": MultiCropConfig(**crops(protocol)), "terms": TERMS}
    return replace(DinoConfig.tiny(), encoder=protocol.encoder, **fields)


def ibot(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return iBOT on single frames."""
    views, fields = MultiCropConfig(**crops(protocol)), teacher(trial)
    base = replace(IbotConfig.tiny(), encoder=protocol.encoder, views=views, **fields)
    return replace(base, patch_targets=fields["targets"])


def mae(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return MAE on single frames; its positions are fixed sine-cosine waves."""
    tiny = MaeConfig.tiny()
    encoder = replace(tiny.encoder, image_size=protocol.encoder.image_size)
    return replace(tiny, encoder=encoder, crop_area=protocol.crop_area)


def videomae(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return VideoMAE on clips of four frames."""
    tiny = VideoMaeConfig.tiny()
    encoder = replace(tiny.encoder, image_size=protocol.encoder.image_size)
    return replace(tiny, encoder=encoder, crop_area=protocol.crop_area)


def croco(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return CroCo v2 on pairs."""
    size = protocol.encoder.image_size
    return replace(CrocoConfig.tiny(), image_size=size, common_area=protocol.crop_area)


def dora(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return DoRA on clips of four frames."""
    tiny, side = DoraConfig.tiny(), (protocol.window_side, protocol.window_side)
    views = replace(
        tiny.views,
        clip_area=protocol.window_area,
        global_size=side,
        global_area=protocol.global_area,
        local_size=side,
        local_area=protocol.global_area,
        num_local=1,
        distort_colours=False,
    )
    return replace(tiny, encoder=protocol.encoder, views=views, **teacher(trial))


def poodle(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return PooDLe with the ViT of all arms, and flow by matching of pixels."""
    size = protocol.encoder.image_size
    return replace(
        PoodleConfig.tiny(),
        encoder=SpatialDecoderConfig(backbone="vit", vit=protocol.encoder, laterals=(2,)),
        size=size,
        frame_area=protocol.crop_area,
        subcrops=SubcropConfig(count=2, size=size, area=(0.1, 0.4)),
        teacher_momentum=trial.momentum,
    )


def dynamo(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return DynaMo on pairs, with its DINO term."""
    fields = teacher(trial) | {"views": pair_views(protocol), "terms": TERMS}
    return replace(DynamoConfig.tiny(), encoder=protocol.encoder, **fields)


def midway(protocol: Protocol, trial: Trial, **dynamics: Any) -> MidwayConfig:
    """Return Midway with both terms, and changed fields of its dynamics."""
    tiny = MidwayConfig.tiny()
    network = replace(
        tiny.network,
        encoder=protocol.encoder,
        dynamics=replace(tiny.network.dynamics, **dynamics),
        head=HeadConfig.tiny("uniform"),
    )
    fields = teacher(trial) | {"views": pair_views(protocol), "terms": TERMS}
    return replace(tiny, network=network, **fields)


def dense_only(protocol: Protocol, trial: Trial) -> MethodConfig:
    """Return Midway without its DINO term, with the fewest and smallest crops for that term."""
    base, patch = midway(protocol, trial), protocol.encoder.patch_size
    views = replace(base.views, global_size=(patch, patch), local_size=(patch, patch))
    return replace(base, dino_weight=0.0, views=views)


def ablation(**dynamics: Any) -> Build:
    """Return the builder of Midway with changed fields of its dynamics."""
    return lambda protocol, trial: midway(protocol, trial, **dynamics)


_NOTHING = {"latent_dynamics": False, "backward_layers": False, "refinement": False, "gates": False}

ARMS = (
    Arm(name="untrained", title="untrained", num_seeds=MANY, kind="untrained"),
    Arm(name="filters", title="random filter energies", kind="filters"),
    Arm(name="pixels", title="pixels of the patch", num_seeds=1, kind="pixels"),
    Arm(name="still", title="no motion", num_seeds=1, kind="still"),
    Arm(name="labels", title="supervised, on the same frames", kind="labels"),
    Arm(name="dino", title="DINO on pairs", num_seeds=MANY, build=dino),
    Arm(name="ibot", title="iBOT", build=ibot),
    Arm(name="mae", title="MAE", num_seeds=MANY, build=mae),
    Arm(name="videomae", title="VideoMAE", build=videomae),
    Arm(name="croco", title="CroCo v2", num_seeds=MANY, build=croco),
    Arm(name="dora", title="DoRA", build=dora),
    Arm(name="poodle", title="PooDLe, ViT", build=poodle),
    Arm(name="dynamo", title="DynaMo", build=dynamo),
    Arm(
        name="base",
        title="no latents (table 3, row 1)",
        chooses_as="midway",
        build=ablation(levels=(3,), **_NOTHING),
    ),
    Arm(name="midway", title="Midway", num_seeds=MANY, build=midway),
    Arm(name="dense", title="Midway, dense term only", chooses_as="midway", build=dense_only),
    Arm(
        name="correlation",
        title="Midway, local correlation",
        chooses_as="midway",
        build=ablation(correlation_radius=2),
    ),
    Arm(
        name="gap-0",
        title="Midway, pairs 0 s apart",
        chooses_as="midway",
        build=midway,
        pairs="gap-0",
    ),
    Arm(
        name="shuffled",
        title="Midway, shuffled pairs",
        chooses_as="midway",
        build=midway,
        pairs="shuffled",
    ),
)
"""Arms in the order of the tables. One more arm is one more line."""


def _ablation(name: str, title: str, **dynamics: Any) -> Arm:
    return Arm(name=name, title=title, chooses_as="midway", build=ablation(**dynamics))


ABLATIONS = (
    _ablation(
        "row2", "table 3, 2: latents", **_NOTHING | {"levels": (3,), "latent_dynamics": True}
    ),
    _ablation("row3", "table 3, 3: no refinement, no gates", refinement=False, gates=False),
    _ablation(
        "row4", "table 3, 4: no backward layers, no gates", backward_layers=False, gates=False
    ),
    _ablation("row5", "table 3, 5: no gates", gates=False),
    _ablation("row7", "table 3, 7: no backward layers", backward_layers=False),
    _ablation("row8", "table 3, 8: one level", levels=(3,)),
    _ablation("row9", "table 3, 9: no refinement", refinement=False),
    _ablation("half-width", "table 5: half the midway width", midway_width=24),
    _ablation("double-width", "table 5: twice the midway width", midway_width=96),
    _ablation("midway-depth-1", "table 5: one midway block", midway_depth=1),
    _ablation("forward-depth-1", "table 5: one forward block", forward_depth=1),
)
"""Other rows of tables 3 and 5, which run after all other arms. The full model is the arm midway,
and row 1 of table 3 is the arm base."""


def arms_by_name() -> dict[str, Arm]:
    """Return all arms by name."""
    return {arm.name: arm for arm in (*ARMS, *ABLATIONS)}
