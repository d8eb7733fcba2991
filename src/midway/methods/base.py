"""What every pretraining method is: a configuration, its views, and an objective."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch.utils.flop_counter import FlopCounterMode

from midway.config import from_json
from midway.data.loader import PairBatch
from midway.data.render import Views, render_views
from midway.data.views import ViewsConfig
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import VisionTransformer
from midway.registry import find
from midway.train.objective import Objective, StepOutput


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Base of the methods' configurations."""

    name: str
    """File of the method in `midway.methods`."""
    start: str = ""
    """Run folder or weights file, of a network of the same sizes, that training begins from; fresh
    weights if empty."""


class Method(Objective):
    """An objective that pretrains an encoder from pairs of frames.

    A method is one file in `midway.methods`: its `Config`, and a class that the module's
    `METHOD` names.
    """

    Config: ClassVar[type[MethodConfig]]

    @classmethod
    @abstractmethod
    def from_config(cls, config: Any) -> Self:
        """Build the method with fresh weights."""

    @property
    @abstractmethod
    def encoder(self) -> VisionTransformer:
        """What evaluations and exports take."""

    @property
    @abstractmethod
    def encoders(self) -> Mapping[str, Encoder]:
        """Encoders by name, "student" and "teacher", that evaluations and exports may choose."""

    @property
    @abstractmethod
    def views(self) -> ViewsConfig:
        """Which crops of a pair it wants."""

    @abstractmethod
    def losses(self, views: Views) -> StepOutput:
        """Loss of the crops of a batch of pairs."""

    @abstractmethod
    def start_from(self, path: str) -> None:
        """Take over the weights of a trained network; MidwayError if its sizes are others."""

    def forward(self, batch: PairBatch) -> StepOutput:
        """Loss of a batch of frame pairs, whose views are made here, on its device."""
        return self.losses(render_views(self.views, batch.windows, batch.views))


def build_method(config: MethodConfig) -> Method:
    """Method that a configuration belongs to, with fresh weights."""
    return find("midway.methods", config.name).METHOD.from_config(config)


def method_config(values: dict[str, Any], *, where: str) -> MethodConfig:
    """Configuration of a method from JSON values; `name` tells which.

    Raises:
        MidwayError: No such method, or a value that it refuses.

    """
    module = find("midway.methods", str(values.get("name")))
    return from_json(module.METHOD.Config, values, where=where)


def flops_per_pair(config: MethodConfig) -> float:
    """Floating-point operations of one pair, forward and backward, counted without computing."""
    with torch.device("meta"):
        method = build_method(config)
        sizes = method.views
        views = Views(
            motion=torch.empty(2, 1, 3, *sizes.motion_size),
            globals=torch.empty(4, 1, 3, *sizes.global_size),
            locals=torch.empty(2 * sizes.num_local, 1, 3, *sizes.local_size),
        )
    with FlopCounterMode(display=False) as counter:
        method.losses(views).loss.backward()
    return float(counter.get_total_flops())
