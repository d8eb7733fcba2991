"""Evaluations of tables 1 to 7: the command of each, the data it reads, and its numbers."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

LAST_BLOCKS = ("--readout.levels", "4", "6", "8", "12")
"""Levels of a linear readout of a ViT without dynamics (iBOT's blocks)."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Data that a row needs."""

    title: str
    folder: str
    """Path below the folder of all data."""
    gigabytes: float | None = None
    """Published size; None if we know none."""


BDD_VIDEOS = Dataset(title="BDD100K videos", folder="bdd100k/videos/train", gigabytes=1800)
VENICE = Dataset(title="Walking Tours Venice", folder="walking_tours/venice.mp4")
SINTEL = Dataset(title="MPI-Sintel", folder="flow/Sintel", gigabytes=5.3)
THINGS = Dataset(title="FlyingThings3D", folder="flow/FlyingThings3D")
CHAIRS = Dataset(title="FlyingChairs", folder="flow/FlyingChairs", gigabytes=31)
TARTANAIR = Dataset(title="TartanAir", folder="flow/TartanAir")
LABELLED = {
    "bdd100k": Dataset(title="BDD100K segmentation", folder="bdd100k"),
    "cityscapes": Dataset(title="Cityscapes, fine", folder="cityscapes", gigabytes=11.3),
    "ade20k": Dataset(title="ADE20K scene parsing", folder="ade20k", gigabytes=0.9),
    "wt-sem": Dataset(title="WT-Sem", folder="wt_sem"),
}


@dataclass(frozen=True, kw_only=True)
class Metric:
    """Number of an evaluation in a table."""

    title: str
    path: tuple[str, ...]
    """Keys of the number in ``results.json``."""

    def of(self, results: Mapping[str, Any]) -> float | None:
        """Return the number in the contents of ``results.json``; None if it is not there."""
        value: Any = results
        for key in self.path:
            value = value.get(key) if isinstance(value, Mapping) else None
        return value


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Evaluation of a pretrained network."""

    name: str
    """Name of its folder."""
    command: tuple[str, ...]
    """Words after ``midway eval``, without network, data and folder."""
    root: str
    """Value of ``--data.root``, below the folder of all data."""
    data: tuple[Dataset, ...]
    metrics: tuple[Metric, ...]


def segmentation(protocol: str, *words: str) -> Evaluation:
    """Return a segmentation evaluation by one of its protocols."""
    name, _, kind = protocol.rpartition("-")
    data = LABELLED[name]
    title = f"{data.title.split()[0].rstrip(',')} {'UperNet' if kind == 'upernet' else kind}"
    return Evaluation(
        name=protocol,
        command=("segmentation", "--protocol", protocol, *words),
        root=data.folder,
        data=(data,),
        metrics=(
            Metric(title=f"{title} mIoU", path=("miou",)),
            Metric(title=f"{title} accuracy", path=("accuracy",)),
        ),
    )


def flow(*words: str, name: str = "flow") -> Evaluation:
    """Return the flow evaluation of the main tables."""
    things, sintel = ("tests", "things test", "renderings"), ("renderings",)
    return Evaluation(
        name=name,
        command=("flow_finetune", "--protocol", "paper", *words),
        root="flow",
        data=(SINTEL, THINGS, CHAIRS, TARTANAIR),
        metrics=tuple(
            Metric(title=f"{title} {rendering} EPE", path=(*path, rendering))
            for title, path in (("Things", things), ("Sintel", sintel))
            for rendering in ("clean", "final")
        ),
    )


def ablation_flow() -> Evaluation:
    """Return the flow evaluation of tables 3 and 5."""
    return Evaluation(
        name="flow-ablation",
        command=("flow_finetune", "--protocol", "ablation"),
        root="flow",
        data=(SINTEL, THINGS, CHAIRS),
        metrics=(Metric(title="Sintel clean EPE", path=("epe",)),),
    )
