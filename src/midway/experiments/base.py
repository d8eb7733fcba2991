"""Experiments: configurations of pretraining runs, their registry, and their training."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from inspect import getmembers, isfunction, signature
from typing import TYPE_CHECKING, Any

import torch

from midway.config import from_json
from midway.data.clips.find import ClipList
from midway.data.sampling.loader import ClipLoader
from midway.data.sampling.samples import ClipDataset, ClipsConfig
from midway.data.segmentation.sample import LabelsConfig
from midway.data.views.spec import ClipSpec
from midway.errors import MidwayError
from midway.methods.base import MethodConfig, build_method, flops_per_sample, method_config
from midway.nn.device import ranks
from midway.progress import ProgressBar
from midway.registry import available, find
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

if TYPE_CHECKING:
    from lightning_fabric import Fabric

    from midway.train.fit import FitSummary

PACKAGE = "midway.experiments"


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """Configuration of a pretraining run: method, data, optimiser, run and labels."""

    method: MethodConfig
    data: ClipsConfig
    optim: OptimConfig
    run: RunConfig
    labels: LabelsConfig = field(default_factory=LabelsConfig)
    """Labelled dataset of the k-NN health metric; not used for training."""


def experiment_from_json(values: Mapping[str, Any], *, where: str) -> Experiment:
    """Build the experiment of a run's ``config.json``.

    Args:
        values: Contents of the file.
        where: Name of the file, for error messages.

    Raises:
        MidwayError: A part is missing, or a key or value is unknown.

    """
    parts = {"data": ClipsConfig, "optim": OptimConfig, "run": RunConfig, "labels": LabelsConfig}
    names = ("method", *parts)
    values = {"labels": {}, **values}  # absent in runs of older versions
    if missing := [name for name in names if name not in values]:
        raise MidwayError(f"{where}: '{missing[0]}' is missing; is it the config.json of a run?")
    for name, value in values.items():
        if name not in names:
            raise MidwayError(f"{where}: no field '{name}'; there are {', '.join(names)}")
        if not isinstance(value, Mapping):
            raise MidwayError(f"{where}: {name} = {value!r} is not a JSON object; correct it")
    return Experiment(
        method=method_config(values["method"], where=f"{where}: method"),
        **{
            name: from_json(kind, values[name], where=f"{where}: {name}")
            for name, kind in parts.items()
        },
    )


def experiments() -> dict[str, Callable[[], Experiment]]:
    """Return all experiments by their name on the command line, ``file.function``."""
    return {
        f"{file}.{name}": function
        for file in available(PACKAGE)
        for name, function in getmembers(find(PACKAGE, file), isfunction)
        if function.__module__ == f"{PACKAGE}.{file}"
        and not signature(function).parameters
        and signature(function).return_annotation is Experiment
    }


def find_data(data: ClipsConfig, spec: ClipSpec, *, quiet: bool = False) -> ClipList:
    """List the clips of an experiment's data.

    Args:
        data: Options of the data.
        spec: Frames of a sample, as the method declares them.
        quiet: Show no progress.

    Raises:
        MidwayError: No usable clips below ``data.root``.

    """
    # Without an index, the headers of all files are read.
    with nullcontext() if quiet else ProgressBar("finding clips", transient=True):
        return data.find(spec.num_frames)


def sample_spec(config: MethodConfig) -> ClipSpec:
    """Return frames, regions, views and signals of a method's samples, without its weights."""
    with torch.device("meta"):
        return build_method(config).spec


def clip_loader(
    experiment: Experiment,
    spec: ClipSpec,
    *,
    found: ClipList | None = None,
    rank: int = 0,
    world_size: int = 1,
) -> ClipLoader:
    """Build the loader of an experiment's samples.

    Args:
        experiment: The experiment.
        spec: Frames, regions, views and signals of a sample, as the method declares them.
        found: Clips from `find_data`; None lists them.
        rank: Number of this process.
        world_size: Number of processes.

    Raises:
        MidwayError: No usable clips below ``data.root``, or too many bad ones.

    """
    data = experiment.data
    found = found or find_data(data, spec, quiet=rank > 0)
    dataset = ClipDataset(found, data, spec, seed=experiment.run.seed)
    return ClipLoader(dataset, rank=rank, world_size=world_size, folder=experiment.run.folder)


def train(
    experiment: Experiment, *, resume: bool = False, found: ClipList | None = None
) -> "FitSummary":
    """Train an experiment until its last step or an interruption.

    Args:
        experiment: The experiment.
        resume: Continue the run in its folder.
        found: Clips of its data from `find_data`; None lists them.

    Raises:
        MidwayError: The data are unusable, the run folder is not empty, or training failed.

    """
    from midway.train.checkpoint import latest_checkpoint
    from midway.train.launch import on_first_rank
    from midway.train.training import Trained, launch_and_fit  # imports Fabric, which takes seconds

    run = experiment.run
    if experiment.labels.root and not run.health_every:
        raise MidwayError(
            "labels.root: is not used while run.health_every is 0; set that or leave this out"
        )

    def build(fabric: "Fabric") -> Trained:
        method = build_method(experiment.method)
        if (start := experiment.method.start) and not (resume and latest_checkpoint(run.folder)):
            method.start_from(start)
        probe = None
        if experiment.labels.root:
            from midway.evals.probes.online_knn import KnnHealth

            probe = KnnHealth(experiment.labels, method.encoders["student"], run)
            on_first_rank(fabric, probe.read)
        return Trained(
            objective=method,
            loader=clip_loader(experiment, method.spec, found=found, **ranks(fabric)),
            flops_per_sample=flops_per_sample(experiment.method),
            probe=probe,
        )

    return launch_and_fit(experiment, build, resume=resume)[0]
