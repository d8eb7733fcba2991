"""Evaluation data of the miniature benchmark, in memory: labelled frames, pairs, clips, tracks."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import torch
from torch import Tensor

from midway.data.labelled_videos.tracks import TrackedVideo, world_video
from midway.data.segmentation.classes import IGNORE
from midway.data.synthetic.shape_world import SHAPE_CLASSES
from midway.evals.probes.recognition import LabelledFrames
from midway.paper.miniature.folders import camvid_images, reduced
from midway.paper.miniature.protocol import Dataset, Protocol

Purpose: TypeAlias = Literal["choose", "report", "flow"]
"""Choice of a trial, readouts of the chosen one, or its flow finetuning."""
CAMVID_CLASSES = 11


@dataclass(frozen=True, kw_only=True, eq=False)
class MaskedClip:
    """Frames of a clip and an id for each pixel: 0 is background or unlabelled."""

    frames: Tensor
    """uint8, shape (frames, H, W, 3)."""
    masks: Tensor
    """uint8, shape (frames, H, W)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TruePairs:
    """Pairs of frames with true flow."""

    source: Tensor
    """uint8, shape (N, H, W, 3)."""
    target: Tensor
    """Same shape as `source`."""
    flow: Tensor
    """Displacement to the right and down in pixels, float32, shape (N, 2, H, W)."""
    occluded: Tensor
    """True where a pixel of the source is hidden in the target, shape (N, H, W)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Readouts:
    """Evaluation data of a dataset. The bootstrap draws whole blocks."""

    train: LabelledFrames
    test: LabelledFrames
    num_classes: int
    frames_per_block: int
    """Consecutive test frames of a block."""
    clips: tuple[MaskedClip, ...]
    """Clips for mask propagation, one for each of the first blocks."""
    pairs: TruePairs | None = None
    """Pairs with true flow, equally many for each block, in its order; None without true flow."""
    tracks: tuple[TrackedVideo, ...] = ()
    """Videos with true tracks, one for each of the first blocks; empty without true tracks."""


@cache  # rendering takes seconds, and all cells of a run share it
def readouts(
    protocol: Protocol, dataset: Dataset, purpose: Purpose, camvid: Path | None
) -> Readouts:
    """Return the evaluation data of a dataset, by purpose: to choose trials, or to report."""
    if dataset == "camvid":
        return _camvid(protocol, camvid)
    first = protocol.choosing_worlds if purpose == "choose" else protocol.reporting_worlds
    return _synthetic(protocol, first)


def labelled_training_frames(
    protocol: Protocol, dataset: Dataset, seed: int, camvid: Path | None
) -> LabelledFrames:
    """Return labelled frames of the training videos, for the supervised arm."""
    if dataset == "camvid":
        return _labelled(camvid_images(camvid, "train"), protocol)
    worlds = range(seed * protocol.num_videos, (seed + 1) * protocol.num_videos)
    return LabelledFrames.render(protocol.world, worlds, 8)


@cache
def flow_training_pairs(protocol: Protocol) -> TruePairs:
    """Return the pairs for the flow finetuning; their worlds follow those of the readouts."""
    start = protocol.reporting_worlds + protocol.test_worlds + protocol.readout_worlds
    return _pairs(protocol, range(start, start + protocol.flow_worlds))


def _synthetic(protocol: Protocol, first: int) -> Readouts:
    test = range(first, first + protocol.test_worlds)
    training = range(test.stop, test.stop + protocol.readout_worlds)
    clip_world = replace(protocol.world, num_frames=protocol.clip_frames, fps=protocol.clip_fps)
    clips = test[: protocol.clip_worlds]
    return Readouts(
        train=LabelledFrames.render(protocol.world, training, 2),
        test=LabelledFrames.render(protocol.world, test, 1),
        num_classes=len(SHAPE_CLASSES),
        frames_per_block=1,
        clips=tuple(
            _clip(LabelledFrames.render(clip_world, [seed], protocol.clip_frames)) for seed in clips
        ),
        pairs=_pairs(protocol, test),
        tracks=tuple(world_video(clip_world, seed, protocol.points_per_clip) for seed in clips),
    )


def _clip(frames: LabelledFrames) -> MaskedClip:
    return MaskedClip(frames=frames.images, masks=frames.instances.byte())


def _pairs(protocol: Protocol, seeds: Sequence[int]) -> TruePairs:
    """Return two pairs of each world, from the beginning and the middle of its video."""
    config, found = protocol.world, []
    for seed in seeds:
        world = config.build(seed)
        for start in (0.0, config.num_frames / config.fps / 2):
            end = start + protocol.pair_seconds
            motion, frames = world.flow(start, end), (world.frame(t).image for t in (start, end))
            found.append((*frames, motion.flow, motion.occluded))
    source, target, flow, occluded = (
        torch.from_numpy(np.stack(parts)) for parts in zip(*found, strict=True)
    )
    return TruePairs(source=source, target=target, flow=flow.permute(0, 3, 1, 2), occluded=occluded)


def _camvid(protocol: Protocol, root: Path | None) -> Readouts:
    training = camvid_images(root, "train")[:: protocol.camvid_every]
    test = _labelled(camvid_images(root, "test"), protocol)
    block = protocol.camvid_block
    # Class ids from 1, because 0 is no label in masks.
    ids = torch.where(test.classes == IGNORE, 0, test.classes + 1).byte()
    return Readouts(
        train=_labelled(training, protocol),
        test=test,
        num_classes=CAMVID_CLASSES,
        frames_per_block=block,
        clips=tuple(
            MaskedClip(frames=frames, masks=masks)
            for frames, masks in zip(test.images.split(block), ids.split(block), strict=True)
        ),
    )


def _labelled(paths: list[Path], protocol: Protocol) -> LabelledFrames:
    images = [reduced(path, protocol) for path in paths]
    labels = [
        reduced(
            path.parent.with_name(f"{path.parent.name}annot") / path.name, protocol, is_label=True
        )
        for path in paths
    ]
    classes = torch.from_numpy(np.stack(labels)).long()
    return LabelledFrames(
        images=torch.from_numpy(np.stack(images)),
        classes=classes.where(classes < CAMVID_CLASSES, IGNORE),
        instances=torch.zeros_like(classes),
    )
