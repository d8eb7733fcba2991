"""One step of a track, from a frame to the next, by a network or by flow."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Generic, Literal, TypeVar

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn import functional as F

from midway.analysis.inputs import Fitted, fit
from midway.analysis.perturbation import check_level, output_heatmaps
from midway.models.flow.correlation import PEAK_RADIUS, TEMPERATURE
from midway.models.flow.predictor import Predictor
from midway.models.midway import MidwayNetwork
from midway.nn.eval_mode import evaluating

NUM_CANDIDATES = 5
"""Hottest places of a heatmap that the look decides between (sec. 4.4)."""
TRIP_SHARE, TRIP_PIXELS = 0.01, 0.5
"""Square of what a way there and back may miss its start by: a share of its own length squared,
and some pixels. Beyond it a point counts as hidden (Sundaram et al., ECCV 2010)."""

Frame = UInt8[Tensor, "3 height width"]
Points = Float[Tensor, "points 2"]
Numbers = Int[Tensor, " points"]
Scores = Float[Tensor, "points rows columns"]
SeenT = TypeVar("SeenT")


class Step(ABC, Generic[SeenT]):
    """How points get from one frame to another; it may remember them as they were at first."""

    @abstractmethod
    def see(self, frame: Frame) -> SeenT:
        """What a step needs of a frame, RGB bytes."""

    @abstractmethod
    def begin(self, numbers: Numbers, points: Points, seen: SeenT) -> None:
        """Take the points of these numbers to start here."""

    @abstractmethod
    def __call__(
        self, numbers: Numbers, points: Points, source: SeenT, target: SeenT
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Places in the target of points that are at `points` in the source, and confidence."""


@dataclass(frozen=True, kw_only=True)
class SeenFrame:
    """A frame as a network sees it."""

    fitted: Fitted
    student: list[Tensor]
    """Features that a source has; at the tracker's level alone if no heatmaps are needed."""
    teacher: list[Tensor]
    """Features that a target has; none if no heatmaps are needed."""
    looks: Float[Tensor, "rows columns dim"]
    """The student's features at the tracker's level, less what all patches of the frame share."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What is remembered of where a point starts."""

    point: Float[Tensor, "2"]
    look: Float[Tensor, " dim"]
    """Of its patch."""
    place: Float[Tensor, "2"]
    """Column and row where the look is found again in its own frame, finer than patches."""


@dataclass(frozen=True, kw_only=True)
class Draws:
    """How the heatmaps are drawn."""

    number: int
    """K."""
    seed: int
    dtype: torch.dtype | None
    """Of the tangents; the network's if None."""


class NetworkStep(Step[SeenFrame]):
    """By heatmaps, by looks, or by both."""

    def __init__(
        self,
        network: MidwayNetwork,
        method: Literal["midway", "features", "heatmap"],
        *,
        level: int,
        short_side: int,
        draws: Draws,
    ) -> None:
        self.network, self.method, self.level = network, method, level
        self.short_side, self.draws = short_side, draws
        self.levels = (level,) if method == "features" else network.config.levels
        if method != "features":
            check_level(network, level)
        self._starts: dict[int, Start] = {}

    def see(self, frame: Frame) -> SeenFrame:
        """Features of the frame."""
        fitted = fit(frame[None], self.network, short_side=self.short_side)
        with evaluating(self.network):
            student = self.network.encoder.levels(fitted.images, self.levels)
            teacher = (
                self.network.teacher.encoder.levels(fitted.images, self.levels)
                if self.method != "features"
                else []
            )
        patches = student[self.levels.index(self.level)][0, 1:]
        # What all patches share says nothing of a place.
        looks = F.normalize(patches - patches.mean(0), dim=1).unflatten(0, fitted.grid)
        return SeenFrame(fitted=fitted, student=student, teacher=teacher, looks=looks)

    def begin(self, numbers: Numbers, points: Points, seen: SeenFrame) -> None:
        """Remember what the points' patches look like."""
        columns, rows = seen.fitted.cells(points).unbind(1)
        looks = seen.looks[rows, columns]
        places = _peaks(_similarity(looks, seen), rows * seen.looks.shape[1] + columns)
        for number, point, look, place in zip(numbers.tolist(), points, looks, places, strict=True):
            self._starts[number] = Start(point=point, look=look, place=place)

    def __call__(
        self, numbers: Numbers, points: Points, source: SeenFrame, target: SeenFrame
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Places in the target, and how much it looks there like the start."""
        starts = [self._starts[number] for number in numbers.tolist()]
        similarity = _similarity(torch.stack([start.look for start in starts]), target)
        cells = source.fitted.cells(points)
        heatmaps = (
            similarity if self.method == "features" else self._heatmaps(cells, source, target)
        )
        if self.method == "midway":
            is_hottest = torch.zeros_like(heatmaps.flatten(1), dtype=torch.bool)
            num_candidates = min(NUM_CANDIDATES, is_hottest.shape[1])
            is_hottest.scatter_(1, heatmaps.flatten(1).topk(num_candidates).indices, True)
            best = similarity.flatten(1).masked_fill(~is_hottest, -torch.inf).argmax(1)
        else:
            best = heatmaps.flatten(1).argmax(1)
        if self.method == "heatmap":
            before, place_before = points, cells
            place = _peaks(heatmaps, best)
        else:
            before = torch.stack([start.point for start in starts])
            place_before = torch.stack([start.place for start in starts])
            place = _peaks(similarity, best)
        after = before + (place - place_before) * points.new_tensor(target.fitted.patch)
        confidence = similarity.flatten(1).gather(1, best[:, None])[:, 0]
        return after, confidence.clamp(0, 1)

    def _heatmaps(
        self, cells: Int[Tensor, "points 2"], source: SeenFrame, target: SeenFrame
    ) -> Scores:
        """One a point; points of one patch share theirs."""
        grid = source.fitted.grid
        tokens, of_point = (cells[:, 1] * grid[1] + cells[:, 0]).unique(return_inverse=True)
        with evaluating(self.network):
            outputs = self.network.predict(source.student, target.teacher, grid)
        found = output_heatmaps(
            self.network,
            outputs.levels[self.level],
            grid,
            level=self.level,
            tokens=tokens.tolist(),
            num_draws=self.draws.number,
            seed=self.draws.seed,
            dtype=self.draws.dtype,
        )
        return found[0].float().cpu()[of_point]


class FlowStep(Step[Frame]):
    """By flow, there and back."""

    def __init__(self, predict: Predictor) -> None:
        self.predict = predict

    def see(self, frame: Frame) -> Frame:
        """The frame itself."""
        return frame

    def begin(self, numbers: Numbers, points: Points, seen: Frame) -> None:
        """Nothing: flow does not depend on what was before."""

    def __call__(
        self, numbers: Numbers, points: Points, source: Frame, target: Frame
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Places where the flow leads; confidence is one half where the way back just misses."""
        there = self._flow_at(points, source, target)
        back = self._flow_at(points + there, target, source)
        lengths = there.square().sum(1) + back.square().sum(1)
        missed = (there + back).square().sum(1)
        return points + there, 1 / (1 + missed / (TRIP_SHARE * lengths + TRIP_PIXELS))

    def _flow_at(self, points: Points, source: Frame, target: Frame) -> Points:
        """Flow from source to target at points of the source, bilinear."""
        first, second = (frame.permute(1, 2, 0).cpu().numpy() for frame in (source, target))
        flow = torch.from_numpy(self.predict(first, second)).permute(2, 0, 1)
        places = (2 * points + 1) / points.new_tensor([source.shape[2], source.shape[1]]) - 1
        sampled = F.grid_sample(
            flow[None], places[None, None], padding_mode="border", align_corners=False
        )
        return sampled[0, :, 0].T


def _similarity(looks: Float[Tensor, "points dim"], seen: SeenFrame) -> Scores:
    return torch.einsum("nd,rcd->nrc", looks, seen.looks).float().cpu()


def _peaks(scores: Scores, best: Int[Tensor, " points"]) -> Float[Tensor, "points 2"]:
    """Column and row of the peak round the best place, as the soft-argmax of matching flow."""
    rows, columns = scores.shape[1:]
    x, y = torch.arange(columns), torch.arange(rows)[:, None]
    best_x, best_y = (best % columns)[:, None, None], (best // columns)[:, None, None]
    is_near = ((x - best_x).abs() < PEAK_RADIUS) & ((y - best_y).abs() < PEAK_RADIUS)
    weights = (scores / TEMPERATURE).masked_fill(~is_near, -torch.inf)
    weights = weights.flatten(1).softmax(1).view_as(scores)
    return torch.stack([(weights * x).sum((1, 2)), (weights * y).sum((1, 2))], dim=1)
