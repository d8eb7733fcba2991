"""Finetune for optical flow: encoder, dynamics and a DPT head, by CroCo v2's published recipe.

A network is validated during training, and the best one and the last are kept beside the run's
checkpoints. As published, the best is chosen on the set that is reported.
"""

import json
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, distributed

from midway.config import from_json
from midway.data.flow.datasets import FlowPair, list_pairs
from midway.data.flow.loader import FlowBatch, FlowLoader, FlowPart
from midway.data.views.photometric_gpu import normalise
from midway.errors import INTERRUPTED, MidwayError
from midway.evals.flow import report, results_of, score_pairs
from midway.evals.readouts.flow_protocols import PROTOCOLS, FinetuneConfig, ValidationConfig
from midway.evals.results import complete, weights_of_run, write_results
from midway.models.dynamics import DynamicsConfig
from midway.models.encoders.base import Encoder
from midway.models.flow.network import (
    BEST,
    LAST,
    FlowNetwork,
    FlowNetworkConfig,
    load_flow_network,
    save_flow_network,
)
from midway.models.flow.predictor import network_predictor
from midway.models.weights import load
from midway.models.weights.files import WeightsFile
from midway.models.weights.release import ReleaseHints
from midway.models.weights.sources import load_encoder, read_source
from midway.nn.device import pick_device
from midway.nn.eval_mode import evaluating
from midway.nn.laplacian import bounded_laplacian, is_valid
from midway.train.objective import Objective, Position, StepOutput

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from midway.train.fit import FitSummary

FINAL_OVERLAP = 0.9
"""Of the tiles when a finished run is scored, as CroCo v2's commands have it."""
NUM_PICTURES = 8
VALIDATION_LOG = "validation.jsonl"
_log = logging.getLogger(__name__)

__all__ = ["PROTOCOLS", "config_from_json", "evaluate", "report"]


@dataclass(frozen=True, kw_only=True)
class Validation:
    """Pairs that a network is validated on, and where the best network goes."""

    pairs: Sequence[FlowPair]
    config: ValidationConfig
    folder: Path


class FlowFinetuning(Objective):
    """The loss of a flow network; it validates the network after some of the steps."""

    best_epe: Tensor
    """Lowest validation error so far; part of a checkpoint, so that a resumed run knows it."""

    def __init__(self, network: FlowNetwork, validation: Validation) -> None:
        super().__init__()
        self.network = network
        self.validation = validation
        self.register_buffer("best_epe", torch.tensor(torch.inf))

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """The finetuned encoder."""
        return {"encoder": self.network.encoder}

    def forward(self, batch: FlowBatch) -> StepOutput:
        """Bounded Laplacian loss over the known pixels of the batch."""
        output = self.network(normalise(batch.source / 255), normalise(batch.target / 255)).float()
        known = is_valid(batch.flow)
        with torch.no_grad():
            error = torch.linalg.vector_norm(output[:, :2] - batch.flow, dim=1)
            epe = torch.where(known, error, 0).sum() / known.sum().clamp(min=1)
        return StepOutput(loss=bounded_laplacian(output, batch.flow), logs={"epe": epe})

    def after_step(self, position: Position) -> None:
        """Validate now and then, and at the end; keep the last network, and the best."""
        step = position.step + 1
        if step % self.validation.config.every_steps and step != position.steps:
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
        """Mean over the pairs of the mean error of each, shared by all ranks."""
        config, (rank, world_size) = self.validation.config, _rank()
        predict = network_predictor(
            self.network, overlap=config.overlap, tiles_at_once=config.tiles_at_once
        )
        share = self.validation.pairs[rank::world_size]
        with evaluating(self.network):
            errors = [pair.epe for pair in score_pairs(share, predict).pairs]
        total = torch.tensor([sum(errors), len(errors)], device=self.best_epe.device)
        if world_size > 1:
            distributed.all_reduce(total)
        return float(total[0] / total[1])


def evaluate(config: FinetuneConfig, *, resume: bool = False) -> dict[str, Any] | None:
    """Finetune a pretrained network for optical flow, then score the best one.

    Args:
        config: A protocol, with what is changed of it.
        resume: Go on with the run in its folder.

    Returns:
        What `results.json` in the folder holds; None on all ranks but the first.
    """
    ended = finetune(config, resume=resume)
    if not ended.is_main:
        return None
    folder = config.run.folder
    told = {"run": str(folder), "steps": ended.steps, "seed": config.run.seed}
    if ended.interrupted:
        return told | {"interrupted": True, "exit_code": INTERRUPTED}
    device = pick_device()
    start = time.monotonic()
    predict = network_predictor(
        load_flow_network(folder).to(device),
        overlap=FINAL_OVERLAP,
        tiles_at_once=config.validation.tiles_at_once,
    )
    scores = score_pairs(
        _pairs(config.validation.parts, config.data.root),
        predict,
        pictures=folder / "pictures",
        num_pictures=NUM_PICTURES,
    )
    results = complete(
        told | {"overlap": FINAL_OVERLAP} | results_of(scores),
        protocol=config.protocol,
        version_hash=config.version(),
        weights=weights_of_run(folder),
        device=device,
        seconds={"test": round(time.monotonic() - start, 1)},
    )
    write_results(folder, results)
    return results


def config_from_json(values: Mapping[str, Any], *, where: str) -> FinetuneConfig:
    """Configuration of a run's ``config.json``.

    Raises:
        MidwayError: A key or value is missing or unknown.
    """
    return from_json(FinetuneConfig, values, where=where)


def finetune(config: FinetuneConfig, *, resume: bool = False) -> "FitSummary":
    """Train to the end, or until asked to stop.

    Raises:
        MidwayError: Unusable data or network, a run folder that is not empty, or a run that went
            wrong.
    """
    from midway.train.training import Trained, launch_and_fit  # imports Fabric: seconds

    def build(fabric: "Fabric") -> Trained:
        # Matrix products of 32 bits may take TensorFloat's shorter fraction, as published.
        torch.set_float32_matmul_precision("high")
        run = config.run
        validation = Validation(
            pairs=_pairs(config.validation.parts, config.data.root),
            config=config.validation,
            folder=run.folder,
        )
        return Trained(
            objective=FlowFinetuning(build_network(config), validation),
            loader=FlowLoader(
                config.data, seed=run.seed, rank=fabric.global_rank, world_size=fabric.world_size
            ),
        )

    return launch_and_fit(config, build, resume=resume)[0]


def build_network(config: FinetuneConfig) -> FlowNetwork:
    """The network that a finetuning starts from; what is new is drawn from torch's generator.

    Raises:
        MidwayError: No network is given, or it cannot be read.
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


def _from_encoder(config: FinetuneConfig, file: WeightsFile | None) -> FlowNetwork:
    start = config.start
    if start.encoder != "student" and (file is None or len(file.encoders) < 2):
        raise MidwayError(
            f"{start.network}: is an encoder alone, without a teacher; leave --start.encoder out"
        )
    is_plain = file is not None and file.layout == "plain"
    told = ReleaseHints(encoder_heads=start.release.encoder_heads) if is_plain else ReleaseHints()
    if start.release != told:
        raise MidwayError(
            f"{start.network}: is an encoder alone and tells its sizes; leave out --image-size and "
            f"{'all --...-heads but --encoder-heads' if is_plain else 'all --...-heads'}"
        )
    encoder = load_encoder(
        start.network,
        weights=start.encoder,
        untrained=start.keep == "nothing",
        hints=start.release,
    )
    network = FlowNetwork.from_encoder(encoder, start.dynamics, config.dpt, config.data.crop)
    if _rank()[0] == 0:
        _log.warning("%s: an encoder without dynamics; these start fresh", start.network)
    return network


def _from_midway(config: FinetuneConfig, file: WeightsFile) -> FlowNetwork:
    start, crop = config.start, config.data.crop
    pretrained = load.build_network(file, start.release)
    if start.dynamics != DynamicsConfig():
        raise MidwayError(
            f"{start.network}: has dynamics, and their sizes stay; leave --start.dynamics out"
        )
    if start.keep == "nothing":
        sizes = replace(pretrained.config.encoder, drop_path=0.0)
        return FlowNetwork(
            FlowNetworkConfig(
                encoder=sizes, dynamics=pretrained.config.dynamics, dpt=config.dpt, crop=crop
            )
        )
    return FlowNetwork.from_pretrained(
        pretrained, config.dpt, crop, encoder=start.encoder, fresh_dynamics=start.keep == "encoder"
    )


def _pairs(parts: Sequence[FlowPart], root: Path) -> list[FlowPair]:
    return [pair for p in parts for pair in list_pairs(p.dataset, root / p.folder, p.split)]


def _rank() -> tuple[int, int]:
    """Number of this process, and of processes."""
    if distributed.is_available() and distributed.is_initialized():
        return distributed.get_rank(), distributed.get_world_size()
    return 0, 1


def _write_line(path: Path, values: dict[str, Any]) -> None:
    """Add a line to the log of validations, in place of lines of later steps that were lost."""
    lines = path.read_text().splitlines() if path.exists() else []
    kept = [line for line in lines if json.loads(line)["step"] < values["step"]]
    path.write_text("\n".join([*kept, json.dumps(values)]) + "\n")
