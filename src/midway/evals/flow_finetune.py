"""Finetune for optical flow: encoder, dynamics and a DPT head, by CroCo v2's published recipe.

A network is validated during training, and the best one and the last are kept beside the run's
checkpoints. As published, the best is chosen on the set that is reported.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from midway.config import from_json
from midway.data.flow.datasets import FlowPair, list_pairs
from midway.data.flow.loader import FlowLoader, FlowPart
from midway.errors import INTERRUPTED
from midway.evals.readouts.flow import FlowFinetuning, Validation, build_network
from midway.evals.readouts.flow_protocols import PROTOCOLS, FinetuneConfig
from midway.evals.readouts.flow_scores import report, results_of, score_pairs
from midway.evals.results import complete, weights_of_run, write_results
from midway.models.flow.network import load_flow_network
from midway.models.flow.predictor import network_predictor
from midway.nn.device import pick_device

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from midway.train.fit import FitSummary

FINAL_OVERLAP = 0.9
"""Of the tiles when a finished run is scored, as CroCo v2's commands have it."""
NUM_PICTURES = 8

__all__ = ["PROTOCOLS", "config_from_json", "evaluate", "report"]


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


def _pairs(parts: Sequence[FlowPart], root: Path) -> list[FlowPair]:
    return [pair for p in parts for pair in list_pairs(p.dataset, root / p.folder, p.split)]
