"""Video object segmentation by label propagation with frozen features, scored by DAVIS J&F."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from jaxtyping import UInt8
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.label_propagation import PropagationConfig, hard_masks, propagate, soft_labels
from midway.atomic import write_picture
from midway.config import to_json
from midway.data.flow.colours import flow_to_rgb
from midway.data.labelled_videos.masks import (
    VOID,
    MaskVideo,
    find_mask_videos,
    objects_of,
    read_frame,
    read_mask,
)
from midway.errors import MidwayError
from midway.evals.metrics.masks import contour_accuracy, recall_and_decay, region_similarity
from midway.evals.results import complete, protocol_version, weights_of, write_results
from midway.models.encoders.base import Encoder
from midway.models.weights.sources import EncoderSource, open_encoder
from midway.nn.device import Accelerator, pick_device
from midway.nn.images import normalise
from midway.progress import progress

VERSION = 2
"""Version of the code; increased if it computes different results from the same options."""

SCORES = ("j", "f", "jf", "j_recall", "j_decay", "f_recall", "f_decay")
PUBLISHED_MULTIPLE = 64
"""Factor of the longer side in DINO's published code, in pixels."""

Masks = UInt8[np.ndarray, "frames height width"]


@dataclass(frozen=True, kw_only=True)
class MaskRoot:
    """Location of videos with masks."""

    root: Path
    """Folder of the unpacked DAVIS, of a video with `frames` and `masks`, or of several videos."""
    split: str = ""
    """List of names below ImageSets, such as 2017/val; all videos if empty."""


@dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """Encoder features that propagate the masks."""

    level: int = -1
    """Encoder level; -1 is the top."""
    short_side: int = 480
    """Shorter side of the encoder's input in pixels, rounded to whole patches; 480 in the protocol.
    Masks are scored at their original size."""
    accelerator: Accelerator = "auto"
    seed: int = 0
    """Seed of untrained weights."""

    def __post_init__(self) -> None:
        if self.short_side < 1:
            raise MidwayError(f"short_side = {self.short_side}; give 1 pixel or more")


DEFAULT_ENCODER, DEFAULT_FEATURES = EncoderSource(), FeatureConfig()
DEFAULT_HOW = PropagationConfig()


def evaluate(
    *,
    data: MaskRoot,
    encoder: Annotated[EncoderSource, tyro.conf.OmitArgPrefixes] = DEFAULT_ENCODER,
    features: Annotated[FeatureConfig, tyro.conf.OmitArgPrefixes] = DEFAULT_FEATURES,
    how: Annotated[PropagationConfig, tyro.conf.OmitArgPrefixes] = DEFAULT_HOW,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Propagate the masks of the first frames through the videos, and score them.

    Args:
        data: Videos with masks.
        encoder: Frozen encoder.
        features: Level and input size.
        how: Propagation protocol.
        folder: Folder for results.json and the masks in DAVIS's submission format; if None, nothing
            is written.

    Raises:
        MidwayError: The data or the network cannot be read.

    """
    start = time.monotonic()
    torch.manual_seed(features.seed)
    opened = open_encoder(encoder)
    network = opened.encoder.to(pick_device(features.accelerator))
    videos = find_mask_videos(data.root, data.split)
    found: dict[str, dict[str, Any]] = {}
    for video in progress(videos, "videos"):
        video_start = time.monotonic()
        masks, objects = carry(network, video, features, how)
        if folder:
            _write_masks(folder / "masks" / video.name, video, masks)
        found[video.name] = {
            "frames": len(masks),
            "objects": score_masks(video, masks, objects),
            "seconds": round(time.monotonic() - video_start, 1),
        }
    settings = {"level": features.level, "short_side": features.short_side, **to_json(how)}
    results = complete(
        {
            **settings,
            "encoder": asdict(encoder),
            **mean_over_objects([video["objects"] for video in found.values()]),
            "still": mean_over_objects([_still(video) for video in videos]),
            "videos": found,
        },
        protocol=f"mask propagation {data.split}".rstrip(),
        version_hash=protocol_version(VERSION, settings),
        weights=weights_of(opened),
        device=next(opened.encoder.parameters()).device,
        seconds=time.monotonic() - start,
    )
    if folder:
        write_results(folder, results)
    return results


@torch.no_grad()
def carry(
    encoder: Encoder, video: MaskVideo, features: FeatureConfig, how: PropagationConfig
) -> tuple[Masks, list[int]]:
    """Propagate the mask of a video's first frame to all frames.

    Args:
        encoder: Frozen encoder.
        video: Video with the mask of its first frame.
        features: Level and input size.
        how: Propagation protocol.

    Returns:
        Masks of all frames, starting with the given one, and the ids of the objects.

    Raises:
        MidwayError: A frame or mask cannot be read, or they differ in size.

    """
    first, objects = _first_mask(video)
    device = next(encoder.parameters()).device
    shape = (first.shape[0], first.shape[1])
    (patch,) = encoder.strides((features.level,))
    if how.as_published:
        size = _published_size(shape, patch, features.short_side)
    else:
        size = _fitted_size(shape, encoder.stride, features.short_side)
    maps = _feature_maps(encoder, video, size, features, antialias=not how.as_published)
    grid = (size[0] // patch, size[1] // patch)
    mask = torch.from_numpy(first).to(device)
    labels = soft_labels(mask, objects, grid, nearest=how.as_published)
    fine = patch if how.as_published else 0
    propagated = [
        hard_masks(each, objects, shape, patch=fine).cpu().numpy()
        for each in propagate(maps, labels, how)
    ]
    return np.stack([first, *propagated]), objects


def score_masks(
    video: MaskVideo, masks: Masks, objects: Sequence[int]
) -> dict[str, dict[str, float]]:
    """Compute `j`, `f` and `jf` of each object, by its id: means over the annotated frames.

    `j_recall` is the share of frames with J above one half, and `j_decay` the mean J of the first
    quarter of the frames minus that of the last; likewise for F. The first and the last frame and
    unlabelled pixels (`VOID`) are not scored, as in DAVIS's official evaluation.

    Args:
        video: Video with ground-truth masks.
        masks: Predicted masks of all frames.
        objects: Ids of the objects.

    Raises:
        MidwayError: A mask cannot be read or differs in size, or no frame can be scored.

    """
    pairs = [
        (mask, read_mask(path, mask.shape))
        for mask, path in zip(masks[1:-1], video.masks[1:-1], strict=True)
        if path is not None
    ]
    if not pairs:
        raise MidwayError(
            f"{video.name}: no frame between the first and the last has a mask; leave the video out"
        )
    found = {}
    for number in objects:
        both = [
            ((mask == number) & ((true != VOID) | (number == VOID)), true == number)
            for mask, true in pairs
        ]
        j = [region_similarity(mask, true) for mask, true in both]
        f = [contour_accuracy(mask, true) for mask, true in both]
        means = {"j": float(np.mean(j)), "f": float(np.mean(f))}
        jf = {"jf": float((np.mean(j) + np.mean(f)) / 2)}
        found[str(number)] = means | jf | recall_and_decay("j", j) | recall_and_decay("f", f)
    return found


def mean_over_objects(videos: Sequence[Mapping[str, Mapping[str, float]]]) -> dict[str, float]:
    """Return the mean scores over all objects of all videos."""
    objects = [scores for video in videos for scores in video.values()]
    return {name: float(np.mean([each[name] for each in objects])) for name in SCORES}


def _still(video: MaskVideo) -> dict[str, dict[str, float]]:
    """Score the baseline that repeats the first mask."""
    first, objects = _first_mask(video)
    return score_masks(video, np.stack([first] * len(video.frames)), objects)


def _first_mask(video: MaskVideo) -> tuple[UInt8[np.ndarray, "height width"], list[int]]:
    path = video.masks[0]
    assert path is not None, "found videos have the mask of their first frame"
    size = read_frame(video.frames[0], None).shape[:2]
    first = read_mask(path, size)
    return first, objects_of(first, path)


def _feature_maps(
    encoder: Encoder,
    video: MaskVideo,
    size: tuple[int, int],
    features: FeatureConfig,
    *,
    antialias: bool,
) -> Iterator[Tensor]:
    """Yield the feature map (dim, rows, columns) of each frame, resized to `size`."""
    device = next(encoder.parameters()).device
    shape = read_frame(video.frames[0], None).shape[:2]
    for path in video.frames:
        frame = torch.from_numpy(read_frame(path, shape)).to(device).permute(2, 0, 1)
        pixels = F.interpolate(frame[None].float(), size, mode="bilinear", antialias=antialias)
        if not antialias:  # the published code resizes bytes
            pixels = pixels.round()
        yield encoder.maps(normalise(pixels, white=255), (features.level,))[0][0]


def _fitted_size(shape: Sequence[int], patch: int, short_side: int) -> tuple[int, int]:
    """Return height and width of the encoder's input, in whole patches."""
    factor = short_side / min(shape)
    height, width = (max(1, round(side * factor / patch)) * patch for side in shape)
    return height, width


def _published_size(shape: Sequence[int], patch: int, short_side: int) -> tuple[int, int]:
    """Return height and width of DINO's input: the longer side is a multiple of 64.

    Raises:
        MidwayError: The patch does not divide a side.
    """
    height, width = shape
    longer = int(short_side * max(shape) / min(shape)) // PUBLISHED_MULTIPLE * PUBLISHED_MULTIPLE
    size = (longer, short_side) if height > width else (short_side, longer)
    if min(size) < 1 or size[0] % patch or size[1] % patch:
        raise MidwayError(
            f"--as-published: patches of {patch} do not divide {size[1]} x {size[0]} pixels; "
            "choose another --short-side, or leave --as-published out"
        )
    return size


def _write_masks(folder: Path, video: MaskVideo, masks: Masks) -> None:
    """Write the masks as palette PNGs, one per frame."""
    folder.mkdir(parents=True, exist_ok=True)
    # Successive hues differ by the golden angle, so they are distinct; the background is black.
    angle = np.arange(255) * 2.399963
    wheel = np.stack([np.cos(angle), np.sin(angle)], axis=1)[None].astype(np.float32)
    colours = np.concatenate([np.zeros((1, 3), np.uint8), flow_to_rgb(wheel, max_pixels=1)[0]])
    for path, mask in zip(video.frames, masks, strict=True):
        image = Image.fromarray(mask)
        image.putpalette(colours.tobytes())
        write_picture(folder / f"{path.stem}.png", image)


_COLUMNS = {
    "jf": "J&F",
    "j": "J",
    "j_recall": "J recall",
    "j_decay": "J decay",
    "f": "F",
    "f_recall": "F recall",
    "f_decay": "F decay",
}


def report(results: Mapping[str, Any]) -> str:
    """Format results as a short table."""
    lines = [f"{'':<24}" + "".join(f"{name:>10}" for name in _COLUMNS.values())]
    for name, scores in (("mean over objects", results), ("first mask kept", results["still"])):
        lines.append(_line(name, scores))
    for name, video in results["videos"].items():
        lines += [_line(f"{name} {number}", each) for number, each in video["objects"].items()]
    return "\n".join(lines)


def _line(name: str, scores: Mapping[str, float]) -> str:
    return f"{name:<24}" + "".join(f"{100 * scores[key]:10.1f}" for key in _COLUMNS)
