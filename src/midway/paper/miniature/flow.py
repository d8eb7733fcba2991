"""Flow finetuning of the miniature benchmark: the same for all arms, on pairs in memory."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from midway.data.sampling.ahead import Batch
from midway.methods.midway import MidwayConfig
from midway.models.encoders.base import Encoder
from midway.models.flow.base import DptConfig, FlowModule
from midway.models.flow.network import FlowNetwork
from midway.models.flow.pair_network import PairFlowNetwork
from midway.models.flow.predictor import network_predictor
from midway.nn.eval_mode import evaluating
from midway.nn.images import normalise
from midway.nn.losses.laplacian import bounded_laplacian
from midway.paper.miniature.protocol import Protocol
from midway.paper.miniature.readouts import TruePairs, flow_training_pairs
from midway.paper.miniature.training import Outcome, fit_until, optim_config, run_config
from midway.train.objective import Loader, Objective, StepOutput
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

HEAD = DptConfig(widths=(24, 48, 96, 96), fused_width=32, last_width=16)
OVERLAP, TILES_AT_ONCE = 0.5, 16
"""Tiles of the test frames, as in the protocol `synthetic` of `midway eval flow_finetune`."""


@dataclass(frozen=True, kw_only=True)
class FlowConfig:
    """Configuration of a finetuning's run."""

    arm: str
    optim: OptimConfig
    run: RunConfig


@dataclass(frozen=True, kw_only=True)
class PairBatch(Batch):
    """Crops of pairs with true flow."""

    source: Tensor
    """ImageNet-normalised, shape (B, 3, height, width)."""
    target: Tensor
    """Same shape as `source`."""
    flow: Tensor
    """Flow in pixels, shape (B, 2, height, width)."""

    def __len__(self) -> int:
        return len(self.source)


class PairCrops:
    """Loader of random crops of pairs; a step's number and the seed determine them.

    Args:
        pairs: Pairs with true flow.
        size: Height and width of the crops.
        batch_size: Crops of a step.
        seed: Seed of all crops.

    """

    def __init__(
        self, pairs: TruePairs, *, size: tuple[int, int], batch_size: int, seed: int
    ) -> None:
        self.pairs, self.size, self.seed = pairs, size, seed
        self.samples_per_step = batch_size
        self.steps_per_epoch = max(1, len(pairs.source) // batch_size)
        self.epochs_per_step = batch_size / len(pairs.source)

    def batches(self, start_step: int, stop_step: int) -> Iterator[PairBatch]:
        """Yield the batches of these steps."""
        height, width = self.pairs.flow.shape[2:]
        ends = (len(self.pairs.flow), height - self.size[0] + 1, width - self.size[1] + 1)
        for step in range(start_step, stop_step):
            generator = torch.Generator().manual_seed(2**20 * self.seed + step)
            drawn = [
                [int(torch.randint(end, (), generator=generator)) for end in ends]
                for _ in range(self.samples_per_step)
            ]
            yield PairBatch(
                source=self._images(self.pairs.source, drawn),
                target=self._images(self.pairs.target, drawn),
                flow=self._cropped(self.pairs.flow, drawn),
            )

    def _images(self, images: Tensor, drawn: list[list[int]]) -> Tensor:
        return normalise(self._cropped(images.permute(0, 3, 1, 2), drawn) / 255)

    def _cropped(self, values: Tensor, drawn: list[list[int]]) -> Tensor:
        height, width = self.size
        return torch.stack(
            [values[n, :, top : top + height, left : left + width] for n, top, left in drawn]
        )


class Finetuning(Objective):
    """Bounded Laplacian loss of a flow network, without validation during training."""

    def __init__(self, network: FlowModule) -> None:
        super().__init__()
        self.network = network

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The finetuned encoder."""
        return {"encoder": self.network.encoder}

    def forward(self, batch: PairBatch) -> StepOutput:
        """Return the loss of a batch."""
        return StepOutput(
            loss=bounded_laplacian(self.network(batch.source, batch.target).float(), batch.flow)
        )


def flow_network(outcome: Outcome, crop: tuple[int, int]) -> FlowModule:
    """Build the flow network of a pretrained arm, with a fresh head.

    Midway keeps its dynamics and CroCo its decoder; all other encoders get fresh dynamics.
    """
    encoder, network, pair_encoder = outcome.encoder, outcome.network, outcome.pair_encoder
    if network is not None:
        return FlowNetwork.from_pretrained(
            network, HEAD, crop, encoder="student", fresh_dynamics=False
        )
    if pair_encoder is not None:
        return PairFlowNetwork.from_pretrained(encoder, pair_encoder, HEAD, crop)
    sizes = MidwayConfig.tiny().network.dynamics
    return FlowNetwork.from_encoder(encoder, sizes, HEAD, crop)


def finetune(
    outcome: Outcome,
    protocol: Protocol,
    folder: Path,
    *,
    arm: str,
    seed: int,
    rate: float,
    deadline: float,
) -> tuple[FlowModule, bool]:
    """Finetune a pretrained arm for flow until the last step or the deadline.

    Args:
        outcome: Pretrained arm.
        protocol: Length and data.
        folder: Folder of the run.
        arm: Name of the arm.
        seed: Seed of the head and of the crops.
        rate: Learning rate.
        deadline: Value of `time.monotonic` from which no step begins.

    Returns:
        The network, and True if the run has reached its last step.

    """
    crop = protocol.encoder.image_size
    config = FlowConfig(
        arm=arm,
        optim=replace(optim_config(protocol, rate), clip="none"),
        run=run_config(protocol, folder, seed=seed, steps=protocol.flow_steps),
    )

    def build() -> tuple[Objective, Loader]:
        loader = PairCrops(
            flow_training_pairs(protocol), size=crop, batch_size=protocol.flow_batch, seed=seed
        )
        return Finetuning(flow_network(outcome, crop)), loader

    objective, is_finished = fit_until(config, build, deadline)
    assert isinstance(objective, Finetuning)
    return objective.network, is_finished


def finetuned_errors(network: FlowModule, pairs: TruePairs) -> list[list[float]]:
    """Return the mean endpoint error over the visible pixels of each pair."""
    predict = network_predictor(network, overlap=OVERLAP, tiles_at_once=TILES_AT_ONCE)
    errors = []
    with evaluating(network):
        for number, flow in enumerate(pairs.flow):
            frames = (each[number].numpy() for each in (pairs.source, pairs.target))
            found = torch.from_numpy(predict(*frames)).permute(2, 0, 1)
            length = (found - flow).norm(dim=0)  # (height, width)
            errors.append([length[~pairs.occluded[number]].mean().item()])
    return errors
