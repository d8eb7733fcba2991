"""Scores of an encoder, block by block, by the readouts of this package."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.label_propagation import PropagationConfig, hard_masks, propagate, soft_labels
from midway.analysis.perturbation import output_heatmaps
from midway.analysis.tracking import track_points
from midway.data.labelled_videos.tracks import TrackedVideo
from midway.evals.metrics.bootstrap import Row, ratio_score
from midway.evals.metrics.correspondence import TruePlaces, token_measures, true_places
from midway.evals.metrics.masks import contour_accuracy, region_similarity
from midway.evals.metrics.segmentation import confusion_matrix
from midway.evals.metrics.tracking import SIDE, queries, tap_vid_scores
from midway.evals.probes.linear import as_input, linear_segmentation, patch_features
from midway.evals.probes.recognition import knn_classes
from midway.evals.probes.windows import window_classes
from midway.evals.tracking import VISIBLE
from midway.models.encoders.base import Encoder
from midway.models.flow.correlation import feature_flow
from midway.models.flow.pixels import pixel_flow
from midway.models.midway import MidwayNetwork
from midway.nn.eval_mode import evaluating
from midway.paper.miniature.readouts import MaskedClip, Readouts, TruePairs

RADIUS = 5
"""Search radius of flow by matching, in patches."""
PAIRS_AT_ONCE = 16
HEATMAP_TOKENS, HEATMAP_DRAWS = 4, 4
"""Moving patches per pair that get a heatmap, and perturbations of each."""


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A column of the tables."""

    title: str
    unit: str
    scale: float = 100.0
    is_error: bool = False
    """True if lower is better."""


MEASURES = {
    "linear": Measure(title="linear", unit="mIoU, %"),
    "knn": Measure(title="k-NN", unit="mIoU, %"),
    "windows": Measure(title="linear in windows", unit="mIoU, %"),
    "window_patches": Measure(title="linear in windows, no class token", unit="mIoU, %"),
    "near": Measure(title="correspondence", unit="near, %"),
    "flow": Measure(title="matching", unit="EPE, px", scale=1.0, is_error=True),
    "finetuned": Measure(title="finetuned flow", unit="EPE, px", scale=1.0, is_error=True),
    "masks": Measure(title="masks", unit="J&F, %"),
    "jaccard": Measure(title="TAP-Vid", unit="AJ, %"),
    "position": Measure(title="TAP-Vid", unit="position, %"),
    "heatmap": Measure(title="heatmaps", unit="near, %"),
}
"""Columns by their names in the records. In windows, arms without class token, which are random
filters and CroCo, have fewer features than others unless it is left out of all."""
IN_WINDOWS = ("windows", "window_patches")
CHOOSING = ("linear", "near")
"""Measures whose mean selects a trial: one for each task."""


def score(rows: Sequence[Row], name: str) -> float:
    """Return the score of a measure in its unit; NaN if nothing was counted."""
    return MEASURES[name].scale * ratio_score(rows)


@dataclass(frozen=True, kw_only=True)
class Measurement:
    """An encoder and the data that it is scored on."""

    encoder: Encoder
    """Frozen encoder, read at its top level."""
    data: Readouts
    network: MidwayNetwork | None = None
    """Midway network that contains the encoder; its heatmaps are scored too. None for others."""
    window: int = 0
    """Side of the windows of the linear readout in windows; 0 for no such readout."""
    matches_pixels: bool = False
    """If True, flow matches pixels, coarse to fine, instead of patches; for the arm `pixels`."""

    def rows(self, name: str) -> list[Row]:
        """Return the rows of a measure; none without ground truth, or without windows for it."""
        data, encoder = self.data, self.encoder
        if name == "finetuned":
            return []  # has cells of its own
        if name in IN_WINDOWS and not self.window:
            return []
        if name in ("linear", "knn", *IN_WINDOWS):
            return _iou_rows(self._classes(name), data)
        with evaluating(encoder):
            if name == "masks":
                return [_mask_row(encoder, clip) for clip in data.clips]
            if name in ("jaccard", "position"):
                return [_track_row(encoder, video, name) for video in data.tracks]
            if data.pairs is None:
                return []
            if name == "heatmap":
                values = _heatmaps(self.network, data.pairs) if self.network else []
            elif name == "near":
                values = _near(encoder, data.pairs)
            else:
                values = _flow_errors(None if self.matches_pixels else encoder, data.pairs)
        return by_block(values, len(data.test.images) // data.frames_per_block)

    def _classes(self, name: str) -> Tensor:
        data = self.data
        if name == "knn":
            return knn_classes(self.encoder, data.train, data.test, data.num_classes)
        train, test = ((each.images, each.classes) for each in (data.train, data.test))
        if name in IN_WINDOWS:
            return window_classes(
                self.encoder,
                train,
                test,
                data.num_classes,
                side=self.window,
                class_token=name == "windows",
            )
        return linear_segmentation(self.encoder, train, test, data.num_classes)[1]


def _iou_rows(predicted: Tensor, data: Readouts) -> list[Row]:
    """Return intersections and unions of the classes in each block."""
    rows: list[Row] = []
    true, block = data.test.classes, data.frames_per_block
    for guess, classes in zip(predicted.split(block), true.split(block), strict=True):
        counts = confusion_matrix(guess, classes, data.num_classes)
        right = counts.diagonal()
        rows.append((right.tolist(), (counts.sum(0) + counts.sum(1) - right).tolist()))
    return rows


def _row(values: Sequence[float]) -> Row:
    """Return the sum and the number of the values that are not NaN."""
    real = [value for value in values if not np.isnan(value)]
    return [float(sum(real))], [float(len(real))]


def by_block(values: Sequence[Sequence[float]], num_blocks: int) -> list[Row]:
    """Return a row per block from the values of each pair; blocks have equally many pairs."""
    pairs = len(values) // num_blocks
    return [
        _row([value for pair in values[start : start + pairs] for value in pair])
        for start in range(0, len(values), max(1, pairs))
    ]


def still_rows(data: Readouts) -> dict[str, list[Row]]:
    """Return the rows of no motion: zero flow, and masks and points that stay where they start."""
    found = {
        "masks": [
            _mask_scores([clip.masks[0].numpy()] * len(clip.masks[1:]), clip) for clip in data.clips
        ]
    }
    if data.pairs is not None:
        errors = _errors(torch.zeros_like(data.pairs.flow), data.pairs.flow, data.pairs.occluded)
        found["flow"] = by_block(errors, len(data.test.images) // data.frames_per_block)
    for name in ("jaccard", "position") if data.tracks else ():
        found[name] = []
        for video in data.tracks:
            _, _, given = _queries(video)
            points = np.repeat(given[:, None], len(video.frames), axis=1)
            sure = np.ones(points.shape[:2])
            found[name].append(_track_scores(points, sure, video, name))
    return found


def _mask_row(encoder: Encoder, clip: MaskedClip) -> Row:
    """Return J&F of the masks that are propagated from a clip's first frame."""
    (maps,) = encoder.maps(as_input(clip.frames, encoder), (-1,))
    first, shape = clip.masks[0], (clip.masks.shape[1], clip.masks.shape[2])
    objects = _objects(clip)
    labels = soft_labels(first, objects, (maps.shape[2], maps.shape[3]))
    found = propagate(maps, labels, PropagationConfig())
    return _mask_scores([hard_masks(soft, objects, shape).numpy() for soft in found], clip)


def _objects(clip: MaskedClip) -> list[int]:
    return [int(each) for each in clip.masks[0].unique() if each]


def _mask_scores(guesses: Sequence[NDArray[np.uint8]], clip: MaskedClip) -> Row:
    """Return J&F over the objects of a clip's first frame and all later frames."""
    scores: list[float] = []
    for guess, truth in zip(guesses, clip.masks[1:].numpy(), strict=True):
        for number in _objects(clip):
            both = guess == number, truth == number
            scores.append((region_similarity(*both) + contour_accuracy(*both)) / 2)
    return _row(scores)


def _track_row(encoder: Encoder, video: TrackedVideo, name: str) -> Row:
    """Track each point from its first visible frame by the similarity of patches."""
    _, starts, given = _queries(video)
    tracks = track_points(
        encoder,
        torch.from_numpy(video.frames).permute(0, 3, 1, 2),
        torch.from_numpy(given),
        torch.from_numpy(starts),
        method="features",
        short_side=min(video.frames.shape[1:3]),
    )
    return _track_scores(tracks.points.numpy(), tracks.confidence.numpy(), video, name)


def _queries(video: TrackedVideo) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return the numbers of the queried points, their first visible frames and places there."""
    numbers, starts = queries(video.occluded, "first")
    height, width = video.frames.shape[1:3]
    given = video.points[numbers][np.arange(len(starts)), starts]
    return numbers, starts, np.clip(given, 0, np.array([width - 1, height - 1]))


def _track_scores(
    points: NDArray[Any], confidence: NDArray[Any], video: TrackedVideo, name: str
) -> Row:
    """Return a score of tracks, whose positions are pixels of the video."""
    numbers, starts, _ = _queries(video)
    # TAP-Vid scores positions in frames of 256 x 256 pixels.
    side = SIDE / np.array([video.frames.shape[2], video.frames.shape[1]])
    found = tap_vid_scores(
        points=(points + 0.5) * side - 0.5,
        occluded=confidence < VISIBLE,
        true_points=(video.points[numbers] + 0.5) * side - 0.5,
        true_occluded=video.occluded[numbers],
        query_frames=starts,
        mode="first",
    )
    return _row([found["average_jaccard" if name == "jaccard" else "position_accuracy"]])


def _moving(pairs: TruePairs, number: int, grid: tuple[int, int]) -> TruePlaces:
    """Return the true places of the patches of a pair that move by a patch or more."""
    truth = true_places(pairs.flow[number], pairs.occluded[number], grid)
    return truth.chosen(truth.distances() >= 1)


def _near(encoder: Encoder, pairs: TruePairs) -> list[list[float]]:
    """Return for each moving patch of each pair 1 if the most similar patch is near, else 0."""
    patch, found = encoder.stride, []
    grid = (pairs.flow.shape[2] // patch, pairs.flow.shape[3] // patch)
    # (pairs, patches, dim). The mean over patches would dominate the cosine similarity.
    source, target = (
        F.normalize(each - each.mean(1, keepdim=True), dim=2)
        for each in (patch_features(encoder, x, (-1,)) for x in (pairs.source, pairs.target))
    )
    for number in range(len(source)):
        truth = _moving(pairs, number, grid)
        maps = (source[number, truth.tokens] @ target[number].T).unflatten(1, grid)
        found.append(token_measures(maps, truth, (patch, patch))["near"].tolist())
    return found


def _flow_errors(encoder: Encoder | None, pairs: TruePairs) -> list[list[float]]:
    """Return the mean endpoint error over the visible pixels of each pair."""
    errors: list[list[float]] = []
    for part in torch.arange(len(pairs.source)).split(PAIRS_AT_ONCE):
        frames = pairs.source[part], pairs.target[part]
        if encoder is None:
            found = pixel_flow(*(each.permute(0, 3, 1, 2) / 255 for each in frames))
        else:
            both = (as_input(each, encoder) for each in frames)
            found = feature_flow(encoder, *both, level=encoder.depth, radius=RADIUS)
        errors += _errors(found.float(), pairs.flow[part], pairs.occluded[part])
    return errors


def _errors(found: Tensor, true: Tensor, occluded: Tensor) -> list[list[float]]:
    """Return the mean endpoint error over the visible pixels of each pair."""
    length = (found - true).norm(dim=1)  # (pairs, height, width)
    return [[each[~hidden].mean().item()] for each, hidden in zip(length, occluded, strict=True)]


def _heatmaps(network: MidwayNetwork, pairs: TruePairs) -> list[list[float]]:
    """Return for a few moving patches of each pair 1 if the heatmap peaks near, else 0."""
    level, found = network.config.dynamics.levels[-1], []
    with evaluating(network):
        for number in range(len(pairs.source)):
            frames = torch.stack([pairs.source[number], pairs.target[number]])
            source, target = as_input(frames, network).split(1)
            grid, patch = network.grid(source), network.encoder.stride
            truth = _moving(pairs, number, grid)
            if not (count := min(len(truth.tokens), HEATMAP_TOKENS)):
                found.append([])
                continue
            spaced = torch.linspace(0, len(truth.tokens) - 1, count).round().long()
            truth = truth.chosen(spaced)
            maps = output_heatmaps(
                network,
                network.at_level(source, target, level),
                grid,
                level=level,
                tokens=truth.tokens.tolist(),
                num_draws=HEATMAP_DRAWS,
            )
            found.append(token_measures(maps[0], truth, (patch, patch))["near"].tolist())
    return found
