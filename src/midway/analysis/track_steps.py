"""Steps of a tracker from one frame to the next, by network features and heatmaps or by flow."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.inputs import Fitted, fit
from midway.analysis.perturbation import check_level, output_heatmaps
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder
from midway.models.flow.correlation import PEAK_RADIUS, TEMPERATURE
from midway.models.flow.predictor import Predictor
from midway.models.midway import MidwayNetwork
from midway.nn.eval_mode import evaluating

BY_FEATURES = ("features", "chained")
"""Methods that need an encoder only."""
NUM_CANDIDATES = 5
"""Number of heatmap maxima that feature similarity selects from (sec. 4.4)."""
TRIP_SHARE, TRIP_PIXELS = 0.01, 0.5
"""Thresholds of the forward-backward check (Sundaram et al., ECCV 2010). A point is occluded if the
squared round-trip error exceeds `TRIP_SHARE` * squared lengths + `TRIP_PIXELS` (squared pixels)."""

Frame = UInt8[Tensor, "3 height width"]
Points = Float[Tensor, "points 2"]
Numbers = Int[Tensor, " points"]
Scores = Float[Tensor, "points rows columns"]
SeenT = TypeVar("SeenT")


class Step(ABC, Generic[SeenT]):
    """Method that moves points from one frame to another; it may store features of their starts."""

    @abstractmethod
    def see(self, frame: Frame) -> SeenT:
        """Compute the inputs of a step from a frame of RGB bytes."""

    @abstractmethod
    def begin(self, numbers: Numbers, points: Points, seen: SeenT) -> None:
        """Start tracking points in a frame.

        Args:
            numbers: Indices of the points among all points.
            points: Positions in pixels.
            seen: The frame, from `see`.

        """

    @abstractmethod
    def __call__(
        self, numbers: Numbers, points: Points, source: SeenT, target: SeenT
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Move points from the source to the target.

        Args:
            numbers: Indices of the points among all points.
            points: Positions in the source in pixels.
            source: Source frame, from `see`.
            target: Target frame, from `see`.

        Returns:
            Positions in the target in pixels, and confidence from 0 to 1.

        """


@dataclass(frozen=True, kw_only=True)
class SeenFrame:
    """Features of a frame."""

    fitted: Fitted
    student: list[Tensor]
    """Student features, used for source frames; empty for the methods of `BY_FEATURES`."""
    teacher: list[Tensor]
    """Teacher features, used for target frames; empty for the methods of `BY_FEATURES`."""
    descriptors: Float[Tensor, "rows columns dim"]
    """Student features at the tracker's level, centred over the frame and normalised."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """Position and descriptor of a point in its start frame."""

    point: Float[Tensor, "2"]
    """Position in pixels."""
    descriptor: Float[Tensor, " dim"]
    """Descriptor of its patch."""
    place: Float[Tensor, "2"]
    """Sub-patch column and row of the descriptor's similarity peak in the start frame."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """Random directions of the heatmaps."""

    number: int
    """K, the number of directions."""
    seed: int
    dtype: torch.dtype | None
    """Dtype of the tangents; the network's if None."""


class NetworkStep(Step[SeenFrame]):
    """Step by perturbation heatmaps, by feature similarity, or by both.

    Args:
        network: Midway network; for the methods of `BY_FEATURES` also an encoder alone.
        method: `features` selects the patch most similar to the start, `chained` the one most
            similar to the current patch, `heatmap` the maximum of the heatmap. Of the heatmap's
            highest patches, `midway` selects the one most similar to the start, `plain` the one
            most similar to the current patch.
        level: Level of features and heatmaps.
        short_side: Shorter side of the network's input in pixels, see `fit`.
        draws: Random directions of the heatmaps.

    Raises:
        MidwayError: The method needs heatmaps, and the level has no forward model.

    """

    def __init__(
        self,
        network: MidwayNetwork | Encoder,
        method: Literal["midway", "plain", "features", "chained", "heatmap"],
        *,
        level: int,
        short_side: int,
        draws: Draws,
    ) -> None:
        is_midway = isinstance(network, MidwayNetwork)
        self.method, self.level = method, level
        self.encoder = network.encoder if is_midway else network
        self.short_side, self.draws = short_side, draws
        self.dynamics: MidwayNetwork | None = None
        if method not in BY_FEATURES:
            if not is_midway:
                raise MidwayError(
                    f"tracking by {method}: needs the dynamics of a Midway network, not an encoder "
                    "alone; track by features"
                )
            check_level(network, level)
            self.dynamics = network
        self._starts: dict[int, Start] = {}

    def see(self, frame: Frame) -> SeenFrame:
        """Compute the features of a frame."""
        fitted = fit(frame[None], self.encoder, short_side=self.short_side)
        student, teacher, network = [], [], self.dynamics
        if network is None:
            with evaluating(self.encoder):
                patches = self.encoder.maps(fitted.images, (self.level,))[0][0].flatten(1).T
        else:
            levels = network.config.levels
            with evaluating(network):
                student = network.encoder.levels(fitted.images, levels)
                teacher = network.teacher.encoder.levels(fitted.images, levels)
            patches = student[levels.index(self.level)][0, 1:]
        # (patches, dim); the mean over patches would dominate the cosine similarity.
        unit = F.normalize(patches - patches.mean(0), dim=1)
        return SeenFrame(
            fitted=fitted,
            student=student,
            teacher=teacher,
            descriptors=unit.unflatten(0, fitted.grid),
        )

    def begin(self, numbers: Numbers, points: Points, seen: SeenFrame) -> None:
        """Store the descriptors of the points' patches."""
        columns, rows = seen.fitted.cells(points).unbind(1)
        descriptors = seen.descriptors[rows, columns]
        tokens = rows * seen.descriptors.shape[1] + columns
        places = _peaks(_similarity(descriptors, seen), tokens)
        for number, point, descriptor, place in zip(
            numbers.tolist(), points, descriptors, places, strict=True
        ):
            self._starts[number] = Start(point=point, descriptor=descriptor, place=place)

    def __call__(
        self, numbers: Numbers, points: Points, source: SeenFrame, target: SeenFrame
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Move points to the target; confidence is the cosine similarity with the start.

        For `plain` and `chained` it is the similarity with the source.
        """
        if self.method in ("plain", "chained"):
            return self._from_patch_to_patch(points, source, target)
        starts = [self._starts[number] for number in numbers.tolist()]
        similarity = _similarity(torch.stack([start.descriptor for start in starts]), target)
        cells = source.fitted.cells(points)
        heatmaps = (
            similarity if self.method == "features" else self._heatmaps(cells, source, target)
        )
        if self.method == "midway":
            best = _most_similar(similarity, heatmaps)
        else:
            best = heatmaps.flatten(1).argmax(1)
        if self.method == "heatmap":
            # A heatmap is relative to the source frame, a similarity to the start frame.
            before, place_before = points, cells
            place = _peaks(heatmaps, best)
        else:
            before = torch.stack([start.point for start in starts])
            place_before = torch.stack([start.place for start in starts])
            place = _peaks(similarity, best)
        after = before + (place - place_before) * points.new_tensor(target.fitted.patch)
        confidence = similarity.flatten(1).gather(1, best[:, None])[:, 0]
        return after, confidence.clamp(0, 1)

    def _from_patch_to_patch(
        self, points: Points, source: SeenFrame, target: SeenFrame
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Move points by whole patches, to the patch that is most similar to their current one.

        `plain` chooses among the heatmap's `NUM_CANDIDATES` highest patches, `chained` among all.
        """
        cells, columns = source.fitted.cells(points), source.fitted.grid[1]
        tokens = cells[:, 1] * columns + cells[:, 0]
        before, after = (self._unit_patches(each) for each in (source, target))
        similarity = (before[tokens] @ after.T).float().cpu()  # (points, patches)
        if self.method == "chained":
            best = similarity.argmax(1)
        else:
            heatmaps = self._heatmaps(cells, source, target)
            best = _most_similar(similarity.view_as(heatmaps), heatmaps)
        place = torch.stack([best % columns, best // columns], dim=1)
        moved = points + (place - cells.cpu()) * points.new_tensor(target.fitted.patch)
        return moved, similarity.gather(1, best[:, None])[:, 0].clamp(0, 1)

    def _unit_patches(self, seen: SeenFrame) -> Float[Tensor, "patches dim"]:
        """Return unit features, for `chained` less the mean over the frame's patches."""
        if self.method == "chained":
            return seen.descriptors.flatten(0, 1)
        level = self._network().config.levels.index(self.level)
        return F.normalize(seen.student[level][0, 1:], dim=1)

    def _heatmaps(
        self, cells: Int[Tensor, "points 2"], source: SeenFrame, target: SeenFrame
    ) -> Scores:
        """Compute the heatmap of each point; points in one patch share one."""
        grid = source.fitted.grid
        tokens, of_point = (cells[:, 1] * grid[1] + cells[:, 0]).unique(return_inverse=True)
        network = self._network()
        with evaluating(network):
            outputs = network.predict(source.student, target.teacher, grid, lowest=self.level)
        found = output_heatmaps(
            network,
            outputs.levels[self.level],
            grid,
            level=self.level,
            tokens=tokens.tolist(),
            num_draws=self.draws.number,
            seed=self.draws.seed,
            dtype=self.draws.dtype,
        )
        return found[0].float().cpu()[of_point]

    def _network(self) -> MidwayNetwork:
        assert self.dynamics is not None, "checked by __init__"
        return self.dynamics


class FlowStep(Step[Frame]):
    """Step along optical flow, with a forward-backward check as confidence.

    Args:
        predict: Flow predictor.

    """

    def __init__(self, predict: Predictor) -> None:
        self.predict = predict

    def see(self, frame: Frame) -> Frame:
        """Return the frame."""
        return frame

    def begin(self, numbers: Numbers, points: Points, seen: Frame) -> None:
        """Do nothing, because flow does not depend on the start frame."""

    def __call__(
        self, numbers: Numbers, points: Points, source: Frame, target: Frame
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Move points along the flow; confidence is 0.5 at the threshold of the check."""
        forward = self._flow_at(points, source, target)
        backward = self._flow_at(points + forward, target, source)
        lengths = forward.square().sum(1) + backward.square().sum(1)
        error = (forward + backward).square().sum(1)
        return points + forward, 1 / (1 + error / (TRIP_SHARE * lengths + TRIP_PIXELS))

    def _flow_at(self, points: Points, source: Frame, target: Frame) -> Points:
        """Sample the flow from source to target bilinearly at points of the source."""
        first, second = (frame.permute(1, 2, 0).cpu().numpy() for frame in (source, target))
        flow = torch.from_numpy(self.predict(first, second)).permute(2, 0, 1)
        places = (2 * points + 1) / points.new_tensor([source.shape[2], source.shape[1]]) - 1
        sampled = F.grid_sample(
            flow[None], places[None, None], padding_mode="border", align_corners=False
        )
        return sampled[0, :, 0].T


def _similarity(descriptors: Float[Tensor, "points dim"], seen: SeenFrame) -> Scores:
    """Return the cosine similarity of descriptors with all patches of a frame, on the CPU."""
    return torch.einsum("nd,rcd->nrc", descriptors, seen.descriptors).float().cpu()


def _most_similar(similarity: Scores, heatmaps: Scores) -> Int[Tensor, " points"]:
    """Return the most similar of the `NUM_CANDIDATES` highest patches of each heatmap."""
    heat = heatmaps.flatten(1)
    is_hottest = torch.zeros_like(heat, dtype=torch.bool)
    is_hottest.scatter_(1, heat.topk(min(NUM_CANDIDATES, heat.shape[1])).indices, True)
    return similarity.flatten(1).masked_fill(~is_hottest, -torch.inf).argmax(1)


def _peaks(scores: Scores, best: Int[Tensor, " points"]) -> Float[Tensor, "points 2"]:
    """Return column and row of the soft-argmax around the best patch, as in `feature_flow`."""
    rows, columns = scores.shape[1:]
    x, y = torch.arange(columns), torch.arange(rows)[:, None]
    best_x, best_y = (best % columns)[:, None, None], (best // columns)[:, None, None]
    is_near = ((x - best_x).abs() < PEAK_RADIUS) & ((y - best_y).abs() < PEAK_RADIUS)
    weights = (scores / TEMPERATURE).masked_fill(~is_near, -torch.inf)
    weights = weights.flatten(1).softmax(1).view_as(scores)
    return torch.stack([(weights * x).sum((1, 2)), (weights * y).sum((1, 2))], dim=1)
