"""ONNX files of parts of a network, and their run by onnxruntime."""

import logging
import re
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from midway.atomic import write_atomically
from midway.config import json_text
from midway.errors import MidwayError, one_line
from midway.export.parts import Part, traced

OPSET = 18
"""Version of the operators; onnxruntime-web has kernels for it."""
LARGEST = 2_000_000_000
"""Largest size of the weights in bytes; a file of protocol buffers holds less than 2 GiB."""
METADATA = "midway"
"""Key of the description of the part in the metadata of the file."""

_LOGGERS = ("torch.onnx", "onnxscript")


def write_onnx(part: Part, path: Path, description: Mapping[str, Any]) -> None:
    """Write a part as an ONNX file.

    Args:
        part: In evaluation mode, on the CPU.
        path: File to create or replace.
        description: JSON values for the metadata of the file.

    Raises:
        MidwayError: The packages for ONNX are missing, ONNX lacks an operator of the part, or it is
            too large.

    """
    _check_installed(path)
    size = sum(tensor.nbytes for tensor in part.state_dict().values())
    if size > LARGEST:
        raise MidwayError(
            f"{path}: {size / 1e9:.1f} GB of weights, but one ONNX file holds less than 2 GB; give "
            "a name ending in .pt2"
        )
    try:
        with _quiet():
            program = torch.onnx.export(
                traced(part),
                input_names=part.inputs,
                output_names=part.outputs(),
                # These only name the dynamic dimension in the file.
                dynamic_shapes=tuple(
                    {0: "batch"} if n in part.dynamic else None for n in part.inputs
                ),
                opset_version=OPSET,
                dynamo=True,
                # Its rewriter tries all pairs of slices: a minute for ViT-S. onnxruntime optimises
                # the graph when it loads the file.
                optimize=False,
                verbose=False,
            )
            assert program is not None
            _shorten(program.model)
    except torch.onnx.OnnxExporterError as error:
        raise MidwayError(f"{path}: {_reason(error)}") from None
    program.model.metadata_props[METADATA] = json_text(description)
    content = program.model_proto.SerializeToString()
    write_atomically(path, lambda file: file.write(content))


def run_onnx(path: Path, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Run a file by onnxruntime on the CPU, and return its outputs by name.

    Raises:
        MidwayError: onnxruntime cannot run it.

    """
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        names = [each.name for each in session.get_outputs()]
        found = session.run(names, {name: each.numpy() for name, each in inputs.items()})
    except Exception as error:
        # Its errors have no common class but this.
        raise MidwayError(
            f"{path}: onnxruntime cannot run it ({one_line(error)}); give a name ending in .pt2"
        ) from None
    return {name: torch.as_tensor(each) for name, each in zip(names, found, strict=True)}


def _shorten(model: Any) -> None:
    """Compute the constants of a graph, and drop the nodes that nothing reads."""
    from onnxscript import optimizer

    optimizer.inline(model)
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's warnings of its deprecations, and of what it does not fold."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    for name in levels:
        logging.getLogger(name).setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)


def _check_installed(path: Path) -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MidwayError(
            f"{path}: writing and checking ONNX needs {error.name}; pip install "
            "'midway-network[onnx]', or give a name ending in .pt2"
        ) from None


def _reason(error: Exception) -> str:
    """Return the reason and remedy of a failed export in one line."""
    causes: list[str] = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(one_line(cause))
        cause = cause.__cause__
    if operator := re.search(r"No ONNX function found for .*?op='([^']+)'", causes[-1]):
        return (
            f"ONNX has no operator for {operator[1]}; give a name ending in .pt2, which takes all "
            "operators of torch"
        )
    return f"the ONNX exporter refuses it ({causes[-1]}); give a name ending in .pt2"
