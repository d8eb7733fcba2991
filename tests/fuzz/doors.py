"""Doors: for each kind of input, the function of the package that reads it."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import torch

import midway
from midway.config import read_json
from midway.data.clips.find import find_clips
from midway.data.clips.headers import read_store_apart
from midway.data.flow.files import read_flow
from midway.data.images import read_image, read_labelled
from midway.data.labelled_videos.masks import read_mask
from midway.data.labelled_videos.tracks import read_tap_vid
from midway.data.prepare.decode import VideoSource, decode_at_rate
from midway.data.segmentation.class_files import read_dataset
from midway.data.segmentation.images import LabelledImage, LabelledImages
from midway.data.segmentation.layouts import DATASETS
from midway.data.signals import read_signals
from midway.data.video.file import VideoClip, VideoFile
from midway.data.video.frame_times import read_timing
from midway.experiments.base import experiment_from_json
from midway.models.weights.load import NO_HINTS
from midway.models.weights.release import ReleaseHints
from midway.models.weights.sources import EncoderSource, open_encoder
from midway.paper.gather import find_results, markdown, summary, tables_of
from midway.train.checkpoint import load_checkpoint
from midway.train.log import Log
from midway.train.optim import AdamW, OptimConfig
from tests.models.networks import HEADS
from tests.train.toy import Toy

MAX_SECONDS = 30.0
"""Stated duration up to which frames are requested."""
MAX_FRAMES = 400
STORE_SECONDS = 20.0
"""Timeout of a store, below that of an input."""
GAP_SECONDS = (0.05, 0.5)


def video(path: Path) -> None:
    duration = min(read_timing(str(path)).duration_seconds, MAX_SECONDS)
    with VideoFile(str(path)) as opened:
        opened.frames_at([0.0, duration / 3, duration / 2, 0.9 * duration])


def decoding(path: Path) -> None:
    frames = decode_at_rate(VideoSource("video", str(path)), fps=5, short_side=96)
    for _ in zip(range(MAX_FRAMES), frames, strict=False):
        pass


def picture(path: Path) -> None:
    read_image(str(path))


def labelled_picture(path: Path) -> None:
    read_labelled(str(path))


def label(path: Path) -> None:
    dataset = DATASETS["camvid"]
    item = LabelledImage("label", str(path), str(path))
    LabelledImages(dataset.classes, [item]).read(0)


def mask(path: Path) -> None:
    read_mask(path, None)


def flow(path: Path) -> None:
    read_flow(path)


def tracks(path: Path) -> None:
    for _ in read_tap_vid(path):
        pass


def signals(path: Path) -> None:
    name = str(path).removesuffix(".signals.npz")
    read_signals(VideoClip("walk", f"{name}.mp4", 1.0, 4.0), {"action": (2,)}, [0.0, 0.6])


def network(path: Path) -> None:
    # A release file of such a width does not determine its heads.
    midway.load(path, **(HEADS if path.suffix == ".pth" else {}))


def encoder(path: Path) -> None:
    open_encoder(EncoderSource(network=str(path)))


def others(path: Path) -> None:
    hints = ReleaseHints(encoder_heads=HEADS["encoder_heads"])
    source = EncoderSource(network=str(path), release=hints if path.suffix == ".pth" else NO_HINTS)
    open_encoder(source)


def checkpoint(path: Path) -> None:
    toy, scaler = Toy(), torch.amp.GradScaler("cpu", enabled=False)
    optimizer = AdamW(toy, toy.parameter_groups(), OptimConfig())
    load_checkpoint(path, objective=toy, optimizer=optimizer, scaler=scaler)


def config(path: Path) -> None:
    experiment_from_json(read_json(path), where=str(path))


def log(path: Path) -> None:
    with Log(path.parent, start_step=5, steps=10, epochs_per_step=0.1):
        pass


def results(path: Path) -> None:
    header, rows = summary(tables_of(find_results([path])))
    markdown(header, rows)


def class_list(path: Path) -> None:
    read_dataset(str(path))


def clips(path: Path) -> None:
    """An index, or a folder with its index or tables of episodes."""
    found = find_clips(str(path), fps=30, gap_seconds=GAP_SECONDS)
    for clip in found.clips[:MAX_FRAMES]:
        with clip.open() as reader:
            reader.frames_at(clip.frame_seconds[:3].tolist())


def store(path: Path) -> None:
    found = read_store_apart(str(path), num_workers=1, timeout_seconds=STORE_SECONDS)
    for clip in found[:MAX_FRAMES]:
        step = max(1, math.ceil(len(clip.frame_seconds) / 4))
        clip.frames_at(clip.frame_seconds[::step].tolist())


DOORS: dict[str, Callable[[Path], None]] = {
    read.__name__: read
    for read in (
        *(video, decoding, picture, labelled_picture, label, mask, flow, tracks, signals),
        *(network, encoder, others, checkpoint, config, log, results),
        *(class_list, clips, store),
    )
}


def remove(path: Path) -> None:
    """Remove an input that was read, and what its door wrote."""
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
