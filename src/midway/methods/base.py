"""Contract of a pretraining method: a configuration, the views that it wants, and its loss."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from midway.config import from_json
from midway.data.sampling.loader import ClipBatch
from midway.data.views.render import Clips, example_clips
from midway.data.views.spec import ClipSpec
from midway.models.encoders.base import Encoder
from midway.models.weights.sources import encoder_state
from midway.registry import find
from midway.train.objective import Objective, StepOutput


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Base of the methods' configurations."""

    name: str
    """File of the method in `midway.methods`."""
    start: str = ""
    """Network whose weights training begins from, as `--network` takes it; fresh weights if
    empty."""

    @classmethod
    def tiny(cls) -> Self:
        """Return a configuration for tests and small studies, trained on a CPU in minutes."""
        raise NotImplementedError


class Method(Objective):
    """An objective that pretrains encoders on clips.

    A method is one file in `midway.methods` that holds its `Config` and its class, named by the
    module's `METHOD`. Nothing of it stands in the data plane or in the training loop: `spec`
    declares the frames, regions, views and signals of a sample, and `loss` takes them. Random
    numbers of the loss, such as masks, come from torch's global generator, which the loop seeds by
    (seed, rank, step), so that a resumed run draws the same ones.
    """

    Config: ClassVar[type[MethodConfig]]
    spec: ClipSpec
    """Samples that the method trains on."""

    @classmethod
    @abstractmethod
    def from_config(cls, config: Any) -> Self:
        """Build the method with fresh weights."""

    @abstractmethod
    def loss(self, clips: Clips) -> StepOutput:
        """Return the loss of a batch, averaged over its samples."""

    @property
    @abstractmethod
    def encoders(self) -> Mapping[str, Encoder]:
        """Encoders that evaluations and exports take: "student", and "teacher" if there is one."""

    @property
    def pair_encoder(self) -> nn.Module | None:
        """Network between the features of two frames that optical flow is finetuned from.

        None has flow finetuned from fresh dynamics, as in the paper.
        """
        return None

    def start_from(self, network: str) -> None:
        """Load the weights of a trained encoder into all encoders; the other parts stay fresh.

        Args:
            network: As `--network` takes it.

        Raises:
            MidwayError: No such network, or its sizes differ.

        """
        for encoder in self.encoders.values():
            encoder.load_state_dict(encoder_state(network, like=encoder))

    def forward(self, batch: ClipBatch) -> StepOutput:
        """Render the views of a batch on its device, and return their loss."""
        return self.loss(batch.render(self.spec))


def build_method(config: MethodConfig) -> Method:
    """Build the method that a configuration belongs to, with fresh weights."""
    return find("midway.methods", config.name).METHOD.from_config(config)


def method_config(values: Mapping[str, Any], *, where: str) -> MethodConfig:
    """Read the configuration of a method from JSON values, of which `name` is the method.

    Raises:
        MidwayError: No such method, or a value that it refuses.

    """
    module = find("midway.methods", str(values.get("name")))
    return from_json(module.METHOD.Config, values, where=where)


def flops_per_sample(config: MethodConfig) -> float:
    """Count the floating-point operations of one sample, forward and backward.

    Nothing is computed: the tensors have shapes only.
    """
    with torch.device("meta"):
        method = build_method(config)
        clips = example_clips(method.spec, 1)
    with FlopCounterMode(display=False) as counter:
        method.loss(clips).loss.backward()
    return float(counter.get_total_flops())
