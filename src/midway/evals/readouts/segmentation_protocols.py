"""Configuration of segmentation evaluations: published protocols, small ones, and own labels.

Values that the papers do not state follow mmsegmentation and iBOT; see docs/SEGMENTATION.md.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import tyro

from midway.config import from_json, to_json
from midway.data.segmentation.find import described
from midway.data.segmentation.images import SegmentationData, WalkingToursData
from midway.data.segmentation.layouts import FOLDER
from midway.errors import MidwayError
from midway.evals.readouts.inference import InferenceConfig
from midway.evals.readouts.segmentation import ReadoutConfig
from midway.evals.results import protocol_version
from midway.models.weights.sources import EncoderSource
from midway.train.optim import OptimConfig
from midway.train.run import RunConfig

VERSION = 1
"""Version of the code; increased if it computes different results from the same configuration."""
MACHINE = {"data": ("root", "classes", "num_workers"), "inference": ("batch_size",)}
"""Fields that describe the machine and do not affect the results."""
MEASURING = ("steps", "epochs", "precision", "accumulate")
"""Fields of the run that affect the results."""

IBOT_LEVELS = (4, 6, 8, 12)
BACKWARD_LEVELS = (3, 6, 9, 12)
"""Levels of the backward features of the paper's networks, and the top."""
POLY = OptimConfig(
    lr=3e-5,
    scale_lr=False,
    final_lr=0.0,  # mmsegmentation's own floor, 1e-4, is above the peak
    warmup_epochs=0.0,
    warmup_steps=1500,
    schedule="poly",
    power=1.0,
    weight_decay=0.05,
    final_weight_decay=0.05,
    clip="none",
)


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Configuration of a segmentation evaluation with a trained readout."""

    protocol: str
    """Name of the protocol that provides the defaults."""
    encoder: Annotated[EncoderSource, tyro.conf.OmitArgPrefixes] = field(
        default_factory=EncoderSource
    )
    data: SegmentationData
    readout: ReadoutConfig
    inference: InferenceConfig = field(default_factory=InferenceConfig)
    optim: OptimConfig = POLY
    run: RunConfig
    """Training run of the readout."""
    num_pictures: int = 8
    """Number of test images that are drawn."""

    def __post_init__(self) -> None:
        if self.readout.kind == "upernet" and self.data.batch_size < 2:
            raise MidwayError("data.batch_size = 1: UperNet's batch norm needs 2 images or more")

    def version(self) -> str:
        """Return a short hash of the fields that determine the results.

        Network and machine are not part of it. The class list of own labels is read.

        Raises:
            MidwayError: There is no class list, or it cannot be read.

        """
        values = to_json(self)
        parts = {name: values[name] for name in ("data", "readout", "inference", "optim")}
        for part, names in MACHINE.items():
            parts[part] = {k: v for k, v in parts[part].items() if k not in names}
        parts["run"] = {name: values["run"][name] for name in MEASURING}
        # Hashes of version 0.1 stay the same: it had one kind of final rate, and one of features.
        if not self.optim.scale_final_lr:
            del parts["optim"]["scale_final_lr"]
        if self.encoder.features != "encoder":
            parts["features"] = self.encoder.features
        return protocol_version(VERSION, parts | own_labels(self.data))


def own_labels(data: SegmentationData) -> dict[str, Any]:
    """Return what a class list contributes to the version of a protocol; empty without one.

    Raises:
        MidwayError: There is no class list, or it cannot be read.

    """
    if data.dataset != FOLDER:
        return {}
    dataset = to_json(described(data))
    del dataset["classes"]["source"]
    return {"own_labels": dataset}


def config_from_json(values: Mapping[str, Any], *, where: str) -> SegmentationConfig:
    """Return the configuration in the ``config.json`` of a readout's run folder.

    Args:
        values: Contents of the file.
        where: Path of the file, for error messages.

    Raises:
        MidwayError: A part is missing, or a key or value is unknown.

    """
    data = values.get("data")
    if not isinstance(data, Mapping):
        raise MidwayError(f"{where}: has no 'data'; give the config.json of a readout")
    kind = WalkingToursData if data.get("dataset") == "wt_sem" else SegmentationData
    rest = {name: value for name, value in values.items() if name != "data"}
    part = from_json(kind, data, where=f"{where}: data")
    return from_json(SegmentationConfig, rest | {"data": part}, where=where)


def bdd100k_linear() -> SegmentationConfig:
    """Evaluate on BDD100K: frozen network, iBOT's linear head on Midway's backward features.

    Encoders without dynamics take ``--features encoder --readout.levels 4 6 8 12``. For
    FlowE's linear head, take ``--readout.levels 3``, or ``--features encoder --readout.levels 12``.
    """
    return _linear("bdd100k-linear", _driving("bdd100k", batch_size=16), 60_000)


def bdd100k_upernet() -> SegmentationConfig:
    """Evaluate on BDD100K: frozen encoder, UperNet."""
    return _frozen("bdd100k-upernet", _driving("bdd100k", batch_size=16), "upernet", 60_000)


def cityscapes_linear() -> SegmentationConfig:
    """Evaluate on Cityscapes: frozen network, iBOT's linear head on Midway's backward features."""
    return _linear("cityscapes-linear", _driving("cityscapes", batch_size=8), 40_000)


def cityscapes_upernet() -> SegmentationConfig:
    """Evaluate on Cityscapes: frozen encoder, UperNet."""
    return _frozen("cityscapes-upernet", _driving("cityscapes", batch_size=8), "upernet", 40_000)


def ade20k_upernet() -> SegmentationConfig:
    """Evaluate on ADE20K: encoder finetuned with iBOT's recipe, UperNet."""
    data = SegmentationData(dataset="ade20k", **_SCENES, batch_size=16)
    return _finetuned("ade20k-upernet", data)


def wt_sem_upernet() -> SegmentationConfig:
    """Evaluate on WT-Sem: encoder finetuned with iBOT's recipe in batches of 4, UperNet."""
    data = WalkingToursData(dataset="wt_sem", **_SCENES, batch_size=4)
    return _finetuned("wt-sem-upernet", data)


def ade20k_linear() -> SegmentationConfig:
    """Evaluate on ADE20K: backward features, iBOT's linear head, the schedule of BDD100K."""
    data = SegmentationData(dataset="ade20k", **_SCENES, batch_size=16)
    return _linear("ade20k-linear", data, 60_000)


def camvid_linear() -> SegmentationConfig:
    """Evaluate on CamVid (11 classes): frozen encoder, linear head on the top level, CPU."""
    data = SegmentationData(
        dataset="camvid", batch_size=8, num_workers=1, crop=(240, 320), scale=(480, 360)
    )
    return _small("camvid-linear", data, steps=600)


def synthetic_linear() -> SegmentationConfig:
    """Evaluate on synthetic worlds at training resolution: linear head on the top level, CPU."""
    data = SegmentationData(
        dataset="synthetic",
        batch_size=16,
        num_workers=1,
        crop=(64, 64),
        scale=(128, 96),
        ratio=(0.75, 1.5),
    )
    return _small("synthetic-linear", data, steps=400)


def folder_linear() -> SegmentationConfig:
    """Evaluate on your own labels: frozen encoder, linear head on the top level.

    Command: ``midway eval segmentation --protocol folder-linear --network RUN --data.root DIR
    --data.classes FILE``. Page: docs/OWN_LABELS.md.
    """
    config = _small("folder-linear", _own(), steps=1_000)
    return replace(config, inference=InferenceConfig())


def folder_upernet() -> SegmentationConfig:
    """Finetune an encoder on your own labels: UperNet, iBOT's recipe in 10,000 steps at 1e-4.

    Command: ``midway eval segmentation --protocol folder-upernet --network RUN --data.root DIR
    --data.classes FILE``. Page: docs/OWN_LABELS.md.
    """
    config = _finetuned("folder-upernet", _own())
    return replace(
        config,
        optim=replace(POLY, lr=1e-4, warmup_steps=500),
        run=replace(config.run, steps=10_000),
    )


PROTOCOLS: dict[str, Callable[[], SegmentationConfig]] = {
    function.__name__.replace("_", "-"): function
    for function in (
        *(bdd100k_linear, bdd100k_upernet, cityscapes_linear, cityscapes_upernet),
        *(ade20k_upernet, wt_sem_upernet, ade20k_linear, camvid_linear, synthetic_linear),
        *(folder_linear, folder_upernet),
    )
}

# Maximum long side 2048 and short side 512, in training and test.
_SCENES: dict[str, Any] = {"scale": (2048, 512), "test_scale": (2048, 512)}


def _driving(dataset: str, *, batch_size: int) -> SegmentationData:
    """Return data with FlowE's training scales, 1 to 4 times the crop; tests are at native size."""
    return SegmentationData(dataset=dataset, batch_size=batch_size, scale=(2048, 1024))


def _own() -> SegmentationData:
    """Return data of own labels; images keep their size, up to the random ratio."""
    return SegmentationData(dataset=FOLDER, batch_size=8, scale="native")


def _frozen(name: str, data: SegmentationData, kind: Any, steps: int) -> SegmentationConfig:
    return SegmentationConfig(
        protocol=name,
        data=data,
        readout=ReadoutConfig(kind=kind, levels=IBOT_LEVELS),
        run=RunConfig(folder=Path("runs/segmentation") / name, steps=steps, log_every=50),
    )


def _linear(name: str, data: SegmentationData, steps: int) -> SegmentationConfig:
    """Return the paper's linear readout, which reads backward features, not the encoder's."""
    config = _frozen(name, data, "linear", steps)
    return replace(
        config,
        encoder=EncoderSource(features="backward"),
        readout=replace(config.readout, levels=BACKWARD_LEVELS),
    )


def _finetuned(name: str, data: SegmentationData) -> SegmentationConfig:
    config = _frozen(name, data, "upernet", 160_000)
    readout = replace(config.readout, frozen=False, drop_path=0.1, layer_decay=0.9)
    return replace(config, readout=readout)


def _small(name: str, data: SegmentationData, *, steps: int) -> SegmentationConfig:
    config = _frozen(name, data, "linear", steps)
    return replace(
        config,
        readout=ReadoutConfig(kind="linear", levels=(-1,)),
        inference=InferenceConfig(mode="whole"),
        # The problem is convex and has a hundredth of the steps of the long protocols; at this
        # learning rate the result matches that of L-BFGS.
        optim=replace(POLY, lr=0.1, warmup_steps=30, weight_decay=0.0, final_weight_decay=0.0),
        run=replace(config.run, precision="32-true", log_every=10, checkpoint_every=200),
    )
