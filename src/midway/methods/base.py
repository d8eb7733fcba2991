"""Contract of a pretraining method: its configuration, views and loss."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, Self, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.flop_counter import FlopCounterMode

from midway.config import from_json
from midway.data.sampling.loader import ClipBatch
from midway.data.views.render import Clips, example_clips
from midway.data.views.spec import ClipSpec
from midway.models.dino import DinoNetwork
from midway.models.encoders.base import Encoder
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import encoder_state
from midway.registry import find
from midway.train.objective import Objective, Progress, StepOutput

NetworkT = TypeVar("NetworkT", bound=DinoNetwork | MidwayNetwork)


@dataclass(frozen=True, kw_only=True)
class MethodConfig:
    """Base of the methods' configurations."""

    name: str
    """Name of the method's file in `midway.methods`."""
    start: str = ""
    """Network with the initial weights, as for `--network`; fresh weights if empty."""

    @classmethod
    def tiny(cls) -> Self:
        """Return a configuration for tests and small studies, trained on a CPU in minutes."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class About:
    """Publication of a method, and costs of a sample of its default configuration."""

    paper: str
    """Authors, venue and arXiv number."""
    code_licence: str
    """Licence of the authors' code; ours is Apache-2.0 throughout."""
    weights_licence: str
    """Licence of the authors' weights."""
    weights: str
    """Published files that `--network` opens; empty if there are none."""
    sample: str
    """Frames of a sample, in words."""
    encoder_megaparameters: float
    """Parameters of the encoder in units of 1e6."""
    other_megaparameters: float
    """All other trained parameters: heads, decoders and dynamics."""
    giga_multiply_adds: float
    """Multiply-adds in units of 1e9 of the forward passes of all networks, the teacher included."""
    paper_giga_multiply_adds: float | None
    """The same in table 9 of the paper ("GFLOPs"), which counts tokens that nothing reads."""
    activation_megabytes: float
    """Memory in units of 1e6 bytes that the backward pass needs, in float32."""


class Method(Objective):
    """An objective that pretrains encoders on clips.

    A method is one file in `midway.methods` with its `Config` and its class; the module's `METHOD`
    names the class, and ``METHOD(config)`` builds it with fresh weights. The data plane and the
    training loop contain nothing specific to it: `spec` declares the frames, regions, views and
    signals of a sample, and `loss` receives them. Random numbers of the loss, such as masks, must
    come from torch's global generator, which the loop seeds by (seed, rank, step): a resumed run
    then draws the same ones.
    """

    Config: ClassVar[type[MethodConfig]]
    about: ClassVar[About | None] = None
    """Entry of `midway list methods`; each method of this package has one."""
    spec: ClipSpec
    """Samples that the method trains on."""

    @abstractmethod
    def loss(self, clips: Clips) -> StepOutput:
        """Return the loss of a batch, averaged over its samples.

        It must also run on the meta device, where the FLOP counter calls it: shapes and branches
        must not depend on the values of tensors.
        """

    @property
    @abstractmethod
    def encoders(self) -> Mapping[str, Encoder]:
        """Encoders for evaluations and exports: "student", and "teacher" if there is one."""

    def start_from(self, network: str) -> None:
        """Load the weights of a trained encoder into all encoders; other parts stay fresh.

        Args:
            network: As for `--network`.

        Raises:
            MidwayError: No such network, or its sizes differ.

        """
        for encoder in self.encoders.values():
            encoder.load_state_dict(encoder_state(network, like=encoder))

    def pictures(self, batch: ClipBatch) -> dict[str, NDArray[np.uint8]]:
        """Return the features of the student on crops of a batch, coloured by PCA."""
        # Imported only here, because matplotlib takes a third of a second.
        from midway.analysis.training_pictures import feature_picture

        views = batch.render(self.spec).views
        crops = max(views.values(), key=lambda view: view.shape[-1])  # the largest
        return {"features": feature_picture(self.encoders["student"], crops[0, 0])}

    def forward(self, batch: ClipBatch) -> StepOutput:
        """Render the views of a batch on its device, and return their loss."""
        # Inside forward, so that rendering on a GPU belongs to the step.
        return self.loss(batch.render(self.spec))


class TeacherMethod(Method, Generic[NetworkT]):
    """A method with DINO's student, head and EMA teacher (section B.1)."""

    config: Any
    """A `TeacherConfig`."""
    network: NetworkT

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Student and EMA teacher."""
        return self.network.encoders

    def before_step(self, progress: Progress) -> None:
        """Set the teacher's temperature."""
        self.network.dino_loss.set_temperature(progress.epoch)

    def after_backward(self, progress: Progress) -> None:
        """Drop the gradients of the prototype layer during the first epochs."""
        if self.config.freezes_last_layer(progress):
            self.network.head.last_layer.zero_grad(set_to_none=True)

    def after_step(self, progress: Progress) -> None:
        """Update the centre of the teacher's logits, then the teacher."""
        self.network.dino_loss.move_center()
        self.network.update_teacher(*self.config.momenta(progress))


def build_method(config: MethodConfig) -> Method:
    """Build the method of a configuration, with fresh weights."""
    return find("midway.methods", config.name).METHOD(config)


def method_config(values: Mapping[str, Any], *, where: str) -> MethodConfig:
    """Read the configuration of a method from JSON values; `name` selects the method.

    Raises:
        MidwayError: There is no such method, or it refuses a value.

    """
    module = find("midway.methods", str(values.get("name")))
    return from_json(module.METHOD.Config, values, where=where)


def flops_per_sample(config: MethodConfig) -> float:
    """Count the floating-point operations of one sample, forward and backward."""
    # Tensors on the meta device have shapes only, so nothing is computed.
    with torch.device("meta"):
        method = build_method(config)
        # One sample is too few for the batch norm of a vector.
        clips = example_clips(method.spec, 2)
    with FlopCounterMode(display=False) as counter:
        method.loss(clips).loss.backward()
    return counter.get_total_flops() / 2
