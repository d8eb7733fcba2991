"""Steps of a tracker in a window around each point, for networks that were trained on small crops.

A small network sees little detail of a whole frame. In a window, a patch covers fewer pixels, and
the point stays near the middle, far from where the network sees nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from midway.analysis.track_steps import Frame, NetworkStep, Numbers, Points, SeenFrame, Step
from midway.errors import MidwayError


class WindowStep(Step[Frame]):
    """Step of a network that sees squares around a point, at the same place in both frames.

    Args:
        step: Step within a square.
        side: Side of the square in pixels; at most the shorter side of the frames is used.

    Raises:
        MidwayError: The side is below 1.

    """

    def __init__(self, step: NetworkStep, side: int) -> None:
        if side < 1:
            raise MidwayError(f"window of {side} pixels: give 1 or more, or 0 for whole frames")
        self.step, self.side = step, side

    def see(self, frame: Frame) -> Frame:
        """Return the frame."""
        return frame

    def begin(self, numbers: Numbers, points: Points, seen: Frame) -> None:
        """Store the descriptors of the points' patches."""
        for number, point in zip(numbers[:, None], points[:, None], strict=True):
            corner = self._corner(point, seen)
            self.step.begin(number, point - corner, self._see(seen, corner))

    def __call__(
        self, numbers: Numbers, points: Points, source: Frame, target: Frame
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Move points to the target, each in its own square."""
        found = []
        for number, point in zip(numbers[:, None], points[:, None], strict=True):
            corner = self._corner(point, source)
            both = (self._see(frame, corner) for frame in (source, target))
            after, confidence = self.step(number, point - corner, *both)
            found.append((after + corner, confidence))
        return torch.cat([after for after, _ in found]), torch.cat([sure for _, sure in found])

    def _corner(self, point: Points, frame: Frame) -> Float[Tensor, "2"]:
        """Return the column and row of the square around a point, moved into the frame."""
        size = point.new_tensor([frame.shape[2], frame.shape[1]])
        corner = (point[0] - (self.side - 1) / 2).round()
        return torch.minimum(corner, size - self.side).clamp(min=0)

    def _see(self, frame: Frame, corner: Float[Tensor, "2"]) -> SeenFrame:
        left, top = (int(each) for each in corner.tolist())
        return self.step.see(frame[:, top : top + self.side, left : left + self.side])
