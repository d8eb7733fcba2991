"""Files of parts of a network, .onnx and .pt2, with a check against torch."""

from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midway.atomic import write_atomically
from midway.config import json_text
from midway.errors import MidwayError
from midway.export.onnx import METADATA, run_onnx, write_onnx
from midway.export.parts import BATCH, Part, traced
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD

TOLERANCE = 1e-4
"""Largest difference from torch, as a fraction of an output's largest value if that is above 1."""


def write_part(part: Part, path: Path) -> dict[str, float]:
    """Write a part as `.onnx` or `.pt2`, run the file, and compare its outputs with torch's.

    The batch of the file is dynamic, the size of its images fixed. Its metadata describe the part.

    Args:
        part: In evaluation mode, on the CPU.
        path: File to create or replace; the suffix selects the format.

    Returns:
        Largest absolute difference of each output.

    Raises:
        MidwayError: The suffix is unknown, packages for ONNX are missing, ONNX lacks an operator,
            or an output differs by more than `TOLERANCE`.

    """
    if path.suffix not in FORMATS:
        raise MidwayError(f"{path}: unknown format; give a name ending in {' or '.join(FORMATS)}")
    write, run = FORMATS[path.suffix]
    write(part, path, describe_part(part))
    try:
        return _compared(part, path, run)
    except BaseException:  # an interruption too
        path.unlink(missing_ok=True)  # nobody may use it
        raise


def _compared(part: Part, path: Path, run: Callable[..., dict[str, Tensor]]) -> dict[str, float]:
    """Return the largest absolute difference of each output of a file from torch's."""
    # Another batch than the traced one shows that no size became a constant.
    inputs = dict(zip(part.inputs, part.examples(batch=BATCH + 1, seed=1), strict=True))
    with torch.no_grad():
        expected = part(*inputs.values())
    found = run(path, inputs)
    differences = {name: (found[name] - each).abs().max().item() for name, each in expected.items()}
    for name, each in expected.items():
        # Negated, so that NaN is refused too.
        if not differences[name] <= TOLERANCE * max(1, each.abs().max().item()):
            raise MidwayError(
                f"{path}: not kept, as its {name} differs from torch's by {differences[name]:.1e}; "
                "report the network and the versions of torch and onnxruntime"
            )
    return differences


def describe_part(part: Part) -> dict[str, Any]:
    """Return the description of a part for the metadata of its file, as JSON values."""
    return {
        "part": part.name,
        "inputs": list(part.inputs),
        "size": list(part.size),
        "mean": list(IMAGENET_MEAN),
        "std": list(IMAGENET_STD),
        **part.facts,
    }


def _write_pt2(part: Part, path: Path, description: Mapping[str, Any]) -> None:
    program, buffer = traced(part), BytesIO()
    torch.export.save(program, buffer, extra_files={METADATA: json_text(description)})
    write_atomically(path, lambda file: file.write(buffer.getvalue()))


def _run_pt2(path: Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    with torch.no_grad():
        return torch.export.load(path).module()(*inputs.values())


FORMATS: dict[str, tuple[Callable[..., None], Callable[..., dict[str, Tensor]]]] = {
    ".onnx": (write_onnx, run_onnx),
    ".pt2": (_write_pt2, _run_pt2),
}
"""Functions that write and run a file, by its suffix."""
