"""Trained segmentation readouts, loaded from the folder of their run."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from midway.atomic import write_text
from midway.config import from_json, json_text, read_config, read_json, to_json
from midway.data.segmentation.class_list import ClassList
from midway.data.segmentation.crops import at_test_scale
from midway.data.segmentation.find import described
from midway.data.segmentation.loader import as_input
from midway.errors import MidwayError
from midway.evals.readouts.inference import classes_at, predict_logits
from midway.evals.readouts.segmentation import SegmentationReadout
from midway.evals.readouts.segmentation_protocols import SegmentationConfig, config_from_json
from midway.models.weights.check import check_tensors
from midway.models.weights.files import read_weights
from midway.models.weights.load import build_encoder
from midway.train.run import autocast

CLASSES = "classes.json"
"""File of a run folder with the classes of its readout."""


def keep_classes(folder: Path, classes: ClassList) -> None:
    """Write the classes of a readout to its run folder, so that the run describes itself.

    Raises:
        MidwayError: The run began with other classes.

    """
    path = folder / CLASSES
    if not path.exists():
        write_text(path, json_text(to_json(classes), indent=2) + "\n")
    elif not classes.gives_same(from_json(ClassList, read_json(path), where=str(path))):
        raise MidwayError(
            f"{classes.source}: its classes are not those of {path}, with which the run began; "
            "restore them or start a new run"
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedReadout:
    """A readout with its classes and the settings of its run."""

    readout: SegmentationReadout
    """In evaluation mode, on its device."""
    classes: ClassList
    config: SegmentationConfig

    @torch.inference_mode()
    def predict(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the class of each pixel, as the evaluation of the run computes it.

        Args:
            image: RGB of shape (height, width, 3).

        Returns:
            Class ids of shape (height, width).

        """
        device = next(self.readout.parameters()).device
        scaled = at_test_scale(Image.fromarray(image), self.config.data)
        with autocast(device, self.config.run):
            logits = predict_logits(
                lambda images: self.readout.outputs(images)[0],
                as_input(scaled).to(device),
                self.config.inference,
            )
        return classes_at(logits, image.shape[:2]).cpu().numpy().astype(np.uint8)


def load_readout(folder: Path, device: torch.device) -> TrainedReadout:
    """Load the newest checkpoint of a readout's run; its network and data are not needed.

    Args:
        folder: Run folder of ``midway eval segmentation``.
        device: Device of the readout.

    Raises:
        MidwayError: The folder is not of such a run, or a file is missing or damaged.

    """
    path = folder / "config.json"
    values = read_config(path) if path.is_file() else {}
    if "readout" not in values or "inference" not in values:
        raise MidwayError(
            f"{folder}: is not the run folder of a segmentation readout; train one by midway eval "
            "segmentation and give its folder"
        )
    config = config_from_json(values, where=str(path))
    stored = folder / CLASSES
    if stored.is_file():
        classes = from_json(ClassList, read_json(stored), where=str(stored))
    else:  # version 0.1, which had published datasets only
        classes = described(config.data).classes
        assert classes is not None
    file = read_weights(folder)
    encoder = build_encoder(file, "encoder")
    readout = SegmentationReadout(encoder, config.readout, len(classes.names))
    tensors = readout.renamed(file.tensors)
    check_tensors(readout.state_dict(), tensors, where=str(file.path), what="its readout")
    readout.load_state_dict(tensors)
    return TrainedReadout(readout=readout.to(device).eval(), classes=classes, config=config)
