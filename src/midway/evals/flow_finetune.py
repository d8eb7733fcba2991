"""Optical flow finetuning of encoder, dynamics and a DPT head, with CroCo v2's published recipe.

The network is validated during training; the run folder keeps the best and the last one beside the
checkpoints. As in the published recipe, the best one is selected on the set that is reported.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from midway.config import from_json
from midway.data.flow.datasets import list_pairs
from midway.data.flow.loader import FlowLoader, FlowPart
from midway.data.flow.pairs import FlowPair
from midway.errors import INTERRUPTED
from midway.evals.readouts.flow import FlowFinetuning, Validation, build_network
from midway.evals.readouts.flow_protocols import PROTOCOLS, FinetuneConfig
from midway.evals.readouts.flow_scores import report, results_of, score_pairs
from midway.evals.results import complete, weights_of_flow, write_results
from midway.models.flow.network import load_flow_network
from midway.models.flow.predictor import network_predictor
from midway.nn.device import pick_device, ranks

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from midway.train.fit import FitSummary

NUM_PICTURES = 8
"""Number of validation pairs that are drawn."""

__all__ = ["PROTOCOLS", "config_from_json", "evaluate", "report"]


def evaluate(config: FinetuneConfig, *, resume: bool = False) -> dict[str, Any] | None:
    """Finetune a pretrained network for optical flow, then score the best checkpoint.

    Args:
        config: Configuration, usually a protocol with changes.
        resume: Continue the run in its folder.

    Returns:
        Contents of `results.json` in the folder; None on all ranks but the first. For an
        interrupted run, its folder, steps and exit code.
    """
    ended = finetune(config, resume=resume)
    if not ended.is_main:
        return None
    folder = config.run.folder
    run = {"run": str(folder), "steps": ended.steps, "seed": config.run.seed}
    if ended.interrupted:
        return run | {"interrupted": True, "exit_code": INTERRUPTED}
    device = pick_device()
    start = time.monotonic()
    predict = network_predictor(
        load_flow_network(folder).to(device),
        overlap=config.validation.final_overlap,
        tiles_at_once=config.validation.tiles_at_once,
    )
    scores = score_pairs(
        _pairs(config.validation.parts, config.data.root),
        predict,
        pictures=folder / "pictures",
        num_pictures=NUM_PICTURES,
    )
    tests = {
        f"{part.dataset} {part.split}": results_of(
            score_pairs(_pairs((part,), config.data.root), predict)
        )
        for part in config.validation.tests
    }
    measured = results_of(scores) | ({"tests": tests} if tests else {})
    results = complete(
        run | {"overlap": config.validation.final_overlap} | measured,
        protocol=config.protocol,
        version_hash=config.version(),
        weights=weights_of_flow(folder),
        device=device,
        seconds={"test": round(time.monotonic() - start, 1)},
    )
    write_results(folder, results)
    return results


def config_from_json(values: Mapping[str, Any], *, where: str) -> FinetuneConfig:
    """Return the configuration in a run's ``config.json``.

    Args:
        values: Contents of the file.
        where: Path of the file, for error messages.

    Raises:
        MidwayError: A key or value is missing or unknown.
    """
    return from_json(FinetuneConfig, values, where=where)


def finetune(config: FinetuneConfig, *, resume: bool = False) -> "FitSummary":
    """Train to the end, or until an interruption is requested.

    Raises:
        MidwayError: The data or network is unusable, the run folder is not empty, or training
            failed.
    """
    from midway.train.training import Trained, launch_and_fit  # importing Fabric takes seconds

    def build(fabric: "Fabric") -> Trained:
        # Allow TF32 in float32 matrix products, as in the published recipe.
        torch.set_float32_matmul_precision("high")
        run = config.run
        validation = Validation(
            pairs=_pairs(config.validation.parts, config.data.root),
            config=config.validation,
            folder=run.folder,
        )
        loader = FlowLoader(config.data, seed=run.seed, **ranks(fabric))
        loader.require_known()
        _pairs(config.validation.tests, config.data.root)  # missing ones are errors before training
        return Trained(objective=FlowFinetuning(build_network(config), validation), loader=loader)

    return launch_and_fit(config, build, resume=resume)[0]


def _pairs(parts: Sequence[FlowPart], root: Path) -> list[FlowPair]:
    return [pair for p in parts for pair in list_pairs(p.dataset, root / p.folder, p.split)]
