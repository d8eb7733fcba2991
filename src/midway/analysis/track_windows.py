"""Steps of a tracker in a window around each point, for networks that were trained on small crops.

A small network sees little detail of a whole frame. In a window, a patch covers fewer pixels, and
the point stays near the middle, far from where the network sees nothing.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from midway.analysis.inputs import squares_around
from midway.analysis.track_steps import Frame, NetworkStep, Numbers, Points, Step


class WindowStep(Step[Frame]):
    """Step of a network that sees squares around a point, at the same place in both frames.

    Args:
        step: Step within a square.
        side: Side of the square in pixels; an axis of the frames that is shorter is taken whole.

    """

    def __init__(self, step: NetworkStep, side: int) -> None:
        self.step, self.side = step, side

    def see(self, frame: Frame) -> Frame:
        """Return the frame."""
        return frame

    def begin(self, numbers: Numbers, points: Points, seen: Frame) -> None:
        """Store the descriptors of the points' patches."""
        squares = squares_around(seen[None], points, self.side)
        for number, square in zip(numbers.tolist(), squares, strict=True):
            frame = self.step.see(square.images[0])
            self.step.begin(torch.tensor([number]), square.points, frame)

    def __call__(
        self, numbers: Numbers, points: Points, source: Frame, target: Frame
    ) -> tuple[Points, Float[Tensor, " points"]]:
        """Move points to the target, each in its own square."""
        places, confidences = [], []
        squares = squares_around(torch.stack([source, target]), points, self.side)
        for number, square in zip(numbers.tolist(), squares, strict=True):
            both = (self.step.see(frame) for frame in square.images)
            place, confidence = self.step(torch.tensor([number]), square.points, *both)
            places.append(place + square.corner)
            confidences.append(confidence)
        return torch.cat(places), torch.cat(confidences)
