"""Constants of the miniature benchmark; their hash marks every record and table."""

from dataclasses import dataclass, field, replace
from typing import Literal, TypeAlias

from midway.config import to_json
from midway.data.synthetic.shape_world import ShapeWorldConfig
from midway.evals.results import protocol_version
from midway.models.vit_config import EncoderConfig

VERSION = 2
"""Version of the code; increased if it computes different results from the same protocol."""
WORLD_FIELDS = (
    *("height", "width", "num_frames", "fps", "num_objects", "object_size", "thickness", "tilt"),
    *("classes_per_scene", "object_speed", "camera_speed", "texture_periods", "texture_contrast"),
    *("object_tones", "backdrop_tones", "backdrop_saturation", "backdrop_patches", "light_change"),
    "paint_seconds",
)
ENCODER_FIELDS = (
    *("image_size", "patch_size", "width", "depth", "heads", "drop_path", "init_std"),
    "sincos_positions",
)
"""Fields of world and encoder in the hash: all that the protocol relies on. Later options, whose
defaults change nothing, are left out."""

Dataset: TypeAlias = Literal["synthetic", "camvid"]
DATASETS: tuple[Dataset, ...] = ("camvid", "synthetic")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """Settings that are selected for each arm, from the same number of trials."""

    lr: float
    """Peak learning rate."""
    momentum: float
    """EMA momentum of the teacher at the start; arms without a teacher do not use it."""
    temperature: float
    """Teacher's temperature; arms without prototypes do not use it."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Data, network, training and evaluation of all cells."""

    world: ShapeWorldConfig = field(
        default_factory=lambda: ShapeWorldConfig(
            height=96,
            width=128,
            num_frames=45,
            fps=15.0,
            num_objects=6,
            object_size=(0.28, 0.34),
            thickness=(0.25, 0.29),
            tilt=0.4,
            classes_per_scene=1,
            object_speed=14.0,
            camera_speed=8.0,
            texture_periods=(5.0, 14.0),
            texture_contrast=0.2,
            paint_seconds=0.4,
            object_tones=(0.65, 0.85),
            backdrop_tones=(0.05, 0.2),
            backdrop_saturation=0.3,
            backdrop_patches=(40.0, 80.0),
            light_change=0.1,
        )
    )
    """Recognition world of 2026-11-30, written out so that later changes of that world do not
    affect it. Its videos are long enough for clips of four frames."""
    num_videos: int = 96
    """Number of synthetic training videos; those of seed s are the worlds from s * num_videos."""
    gap_seconds: tuple[float, float] = (0.6, 0.8)
    """Time between the frames of a sample of synthetic videos; CamVid has a frame a second."""
    camvid_size: tuple[int, int] = (120, 160)
    """Height and width to which CamVid's images are reduced, a third of the original ones."""

    encoder: EncoderConfig = field(
        default_factory=lambda: replace(
            EncoderConfig.tiny(), image_size=(48, 48), sincos_positions=True
        )
    )
    """Encoder of all arms; CroCo and VideoMAE have their own positions."""
    crop_area: tuple[float, float] = (0.2, 0.35)
    """Area of a crop for prediction or reconstruction, as a fraction of the frame; the crop has the
    encoder's size."""
    window_area: tuple[float, float] = (0.08, 0.12)
    """Area of the window that contains the compared crops, as a fraction of the frame; about that
    of an object."""
    window_side: int = 32
    """Side of the compared crops."""
    global_area: tuple[float, float] = (0.5, 1.0)
    """Area of a compared crop, as a fraction of the window."""

    steps: int = 600
    frames_per_step: int = 64
    """Frames of a step: 64 samples of one frame, 32 pairs, or 16 clips of four frames."""
    warmup_steps: int = 50
    weight_decay: float = 0.04
    clip_norm: float = 3.0
    precision: Literal["32-true", "bf16-mixed"] = "bf16-mixed"
    trials: tuple[Trial, ...] = (
        Trial(lr=2e-3, momentum=0.99, temperature=0.02),
        Trial(lr=1e-3, momentum=0.998, temperature=0.04),
    )
    """Trials of each trained arm, only on the synthetic world and `choosing_seed`: no choice sees
    CamVid. Variants of Midway take its choice."""
    choosing_seed: int = 100

    choosing_worlds: int = 30_000_000
    """Seed of the first world of the readouts that choose; no other cell sees these worlds."""
    reporting_worlds: int = 31_000_000
    """Seed of the first world of the readouts that are reported."""
    readout_worlds: int = 50
    """Worlds with two frames each that train the readouts."""
    test_worlds: int = 40
    """Worlds that test the readouts, each with a frame for segmentation and two pairs."""
    clip_worlds: int = 12
    """Test worlds whose videos test mask propagation and tracking."""
    clip_frames: int = 8
    clip_fps: float = 5.0
    points_per_clip: int = 32
    pair_seconds: float = 0.8
    """Time between the frames of a test pair."""
    camvid_every: int = 3
    """Stride over CamVid's training images for the readouts."""
    camvid_block: int = 5
    """Consecutive test images of CamVid that the bootstrap draws together: they are alike."""

    flow_rates: tuple[float, ...] = (1e-4, 3e-4, 1e-3)
    """Learning rates of the flow finetuning, on the synthetic world; all are reported."""
    flow_steps: int = 300
    flow_batch: int = 8
    flow_worlds: int = 64
    """Worlds with two pairs each for the flow finetuning; they follow those of the readouts."""

    window_readout: int = 0
    """Side in pixels of the windows that the linear readout in windows sees; 0 for no such
    readout."""
    arms: tuple[str, ...] = ()
    """Names of the arms to run, with those that choose for them; all if empty. Not in the hash,
    like `max_seeds`: the selection of cells does not change their scores."""
    max_seeds: int = 5
    """Upper bound of the number of seeds of an arm."""

    def hash(self) -> str:
        """Return a short hash of all constants that determine scores."""
        values = to_json(self)
        for name in ("arms", "max_seeds", *(() if self.window_readout else ("window_readout",))):
            del values[name]
        for part, names in (("world", WORLD_FIELDS), ("encoder", ENCODER_FIELDS)):
            values[part] = {name: values[part][name] for name in names}
        return protocol_version(VERSION, values)


PROTOCOL = Protocol()
LONG = Protocol(
    steps=1200,
    num_videos=192,
    trials=PROTOCOL.trials[1:],
    readout_worlds=200,
    test_worlds=160,
    window_readout=32,
    arms=("untrained", "filters", "dino", "croco", "midway"),
    max_seeds=3,
)
"""Twice the steps on twice the videos, and four times the frames for the readouts, also in windows
of the size of the crops of DINO's term. Its only trial is the second, by which Midway's linear
readout is higher; by both tasks, `PROTOCOL` chose the first for Midway and CroCo, the second for
DINO."""
