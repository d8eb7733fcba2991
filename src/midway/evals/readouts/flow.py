"""Flow finetuning: the objective with its validation, and the network that it starts from."""

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, distributed

from midway.atomic import write_text
from midway.config import json_text
from midway.data.flow.loader import FlowBatch
from midway.data.flow.pairs import FlowPair
from midway.errors import MidwayError
from midway.evals.readouts.flow_protocols import FinetuneConfig, ValidationConfig
from midway.evals.readouts.flow_scores import score_pairs
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.base import Encoder
from midway.models.flow.base import FlowModule
from midway.models.flow.network import (
    BEST,
    LAST,
    FlowNetwork,
    FlowNetworkConfig,
    save_flow_network,
)
from midway.models.flow.pair_network import PairFlowNetwork
from midway.models.flow.predictor import network_predictor
from midway.models.weights import load
from midway.models.weights.files import WeightsFile
from midway.models.weights.pair import build_pair_encoder
from midway.models.weights.release import ReleaseHints
from midway.models.weights.sources import load_encoder, read_source
from midway.models.weights.unwrap import has_several_encoders
from midway.nn.eval_mode import evaluating
from midway.nn.images import normalise
from midway.nn.losses.laplacian import bounded_laplacian, is_valid
from midway.train.objective import Objective, Progress, StepOutput

VALIDATION_LOG = "validation.jsonl"
"""File of the run folder with one line per validation."""
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Validation pairs, and the folder of the validation log and networks."""

    pairs: Sequence[FlowPair]
    config: ValidationConfig
    folder: Path


class FlowFinetuning(Objective):
    """Supervised loss of a flow network, with periodic validation."""

    best_epe: Tensor
    """Lowest validation EPE so far; a buffer, so that checkpoints contain it."""

    def __init__(self, network: FlowModule, validation: Validation) -> None:
        super().__init__()
        self.network = network
        self.validation = validation
        self.register_buffer("best_epe", torch.tensor(torch.inf))

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The finetuned encoder."""
        return {"encoder": self.network.encoder}

    def forward(self, batch: FlowBatch) -> StepOutput:
        """Compute the bounded Laplacian loss over the known pixels of a batch.

        The logs contain `epe`, the mean endpoint error in pixels; NaN without a known pixel.
        """
        output = self.network(normalise(batch.source / 255), normalise(batch.target / 255)).float()
        known = is_valid(batch.flow)
        with torch.no_grad():
            error = torch.linalg.vector_norm(output[:, :2] - batch.flow, dim=1)  # (B, H, W)
            epe = torch.where(known, error, 0).sum() / known.sum()
        return StepOutput(loss=bounded_laplacian(output, batch.flow), logs={"epe": epe})

    def after_step(self, progress: Progress) -> None:
        """Validate every `every_steps` steps and at the end; save the last and the best network."""
        step = progress.step + 1
        if step % self.validation.config.every_steps and step != progress.steps:
            return
        epe = self._validation_epe()
        is_best = epe < float(self.best_epe)
        self.best_epe.fill_(min(epe, float(self.best_epe)))
        if _rank()[0] == 0:
            folder = self.validation.folder
            _write_line(folder / VALIDATION_LOG, {"step": step, "epe": epe})
            save_flow_network(self.network, folder / LAST)
            if is_best:
                save_flow_network(self.network, folder / BEST)

    def _validation_epe(self) -> float:
        """Return the mean EPE per pair, averaged over all pairs; each rank evaluates a share."""
        config, (rank, world_size) = self.validation.config, _rank()
        predict = network_predictor(
            self.network, overlap=config.overlap, tiles_at_once=config.tiles_at_once
        )
        share = self.validation.pairs[rank::world_size]
        with evaluating(self.network):
            errors = [pair.epe for pair in score_pairs(share, predict).pairs]
        total = self.best_epe.new_tensor([sum(errors), len(errors)])
        if world_size > 1:
            distributed.all_reduce(total)
        return float(total[0] / total[1])


def build_network(config: FinetuneConfig) -> FlowModule:
    """Build the network to finetune; new weights are drawn from torch's generator.

    Raises:
        MidwayError: No network is given, it cannot be read, or an option does not apply to it.
    """
    start = config.start
    if not start.network:
        raise MidwayError(
            "flow finetuning: no network to start from; give --network RUN, or timm:NAME, or random"
        )
    file = read_source(start.network)
    if file is None or not file.has_network:
        network = _from_encoder(config, file)
    else:
        network = _from_midway(config, file)
    if start.frozen:
        network.freeze()
    return network


def _from_encoder(config: FinetuneConfig, file: WeightsFile | None) -> FlowModule:
    start = config.start
    is_plain = file is not None and file.layout == "plain"
    has_teacher = file is not None and (
        has_several_encoders(file.tensors) if is_plain else len(file.encoders) > 1
    )
    if start.encoder != "student" and not has_teacher:
        raise MidwayError(
            f"{start.network}: is an encoder without a teacher; leave out --start.encoder"
        )
    # A plain state dict determines all sizes except the number of attention heads.
    heads = start.release.encoder_heads if is_plain else ReleaseHints().encoder_heads
    if start.release != ReleaseHints(encoder_heads=heads):
        raise MidwayError(
            f"{start.network}: is an encoder with sizes of its own; leave out --image-size and "
            f"{'all --...-heads but --encoder-heads' if is_plain else 'all --...-heads'}"
        )
    encoder = load_encoder(
        start.network,
        weights=start.encoder,
        untrained=start.keep == "nothing",
        hints=start.release,
    )
    pair_encoder = None
    if file is not None and start.keep != "encoder":
        pair_encoder = build_pair_encoder(file, untrained=start.keep == "nothing")
    if pair_encoder is not None:
        if start.dynamics != DynamicsConfig():
            raise MidwayError(
                f"{start.network}: has a {pair_encoder.kind} pair encoder instead of "
                "the dynamics; leave out --start.dynamics, or give --start.keep encoder"
            )
        return PairFlowNetwork.from_pretrained(encoder, pair_encoder, config.dpt, config.data.crop)
    network = FlowNetwork.from_encoder(encoder, start.dynamics, config.dpt, config.data.crop)
    if _rank()[0] == 0:
        _log.warning("%s: has no dynamics; they are initialised randomly", start.network)
    return network


def _from_midway(config: FinetuneConfig, file: WeightsFile) -> FlowNetwork:
    start, crop = config.start, config.data.crop
    pretrained = load.build_network(file, start.release)
    if start.dynamics != DynamicsConfig():
        raise MidwayError(
            f"{start.network}: has dynamics of fixed sizes; leave out --start.dynamics"
        )
    if start.keep == "nothing":
        sizes = replace(pretrained.config.encoder, drop_path=0.0)
        return FlowNetwork(
            FlowNetworkConfig(
                encoder=sizes,
                dynamics=replace(pretrained.config.dynamics, latent_dynamics=True),
                dpt=config.dpt,
                crop=crop,
            )
        )
    return FlowNetwork.from_pretrained(
        pretrained, config.dpt, crop, encoder=start.encoder, fresh_dynamics=start.keep == "encoder"
    )


def _rank() -> tuple[int, int]:
    """Return the rank and the world size."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _write_line(path: Path, values: dict[str, Any]) -> None:
    """Append to the validation log; lines of later steps, from before a resume, are dropped."""
    lines = path.read_text().splitlines() if path.is_file() else []
    kept = [line for line in lines if _step_of(line) < values["step"]]
    text = "\n".join([*kept, json_text(values)]) + "\n"
    # Rewritten as a whole, so that neither a kill nor a full disk loses the earlier lines.
    write_text(path, text)


def _step_of(line: str) -> float:
    """Return the step of a line of the log; infinity if the line is damaged."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return inf
