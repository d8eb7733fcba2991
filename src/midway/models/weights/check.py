"""Checks of tensors from files, before any of them is loaded."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from midway.errors import MidwayError

SHOWN = 4
"""Largest number of names in an error message."""
LONGEST = 80
"""Largest length of one of them."""


def meta_state(build: Callable[[], nn.Module]) -> dict[str, Tensor]:
    """Return the state dict of a module that is built on the meta device, without memory."""
    with torch.device("meta"):
        return build().state_dict()


def check_tensors(
    state: Mapping[str, Tensor],
    tensors: Mapping[str, Any],
    *,
    where: str,
    what: str,
    hint: str = "",
) -> None:
    """Check the tensors of a file against a state dict; names are those of the file.

    Args:
        state: Output of `meta_state`, or the state dict of the module itself.
        tensors: Tensors of the file.
        where: Name of the file.
        what: Name of the module.
        hint: Remedy for tensors that do not match.

    Raises:
        MidwayError: Tensors are missing, unknown, or of another type or shape; or one has values
            that are not finite.

    """
    if found := faults(state, tensors):
        raise MidwayError(f"{where}: tensors do not match {what}: {found}{hint}")
    check_finite(tensors, where=where)


def faults(state: Mapping[str, Tensor], tensors: Mapping[str, Any]) -> str:
    """Return a description of the tensors that do not fit a state dict; empty if all fit.

    Args:
        state: State dict of the module; its tensors may be on the meta device.
        tensors: Tensors of a file, by the names of the state dict.

    """
    shared = state.keys() & tensors.keys()
    kinds = (
        ("missing", state.keys() - tensors.keys()),
        ("unknown", tensors.keys() - state.keys()),
        ("of another type", {n for n in shared if not _has_type(tensors[n], state[n])}),
        ("of another shape", {n for n in shared if not _has_shape(tensors[n], state[n])}),
    )
    return "; ".join(f"{len(names)} {fault} ({shown(names)})" for fault, names in kinds if names)


def printable(text: str) -> str:
    """Replace control characters of a text from a file, which could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def shown(names: Iterable[object]) -> str:
    """Return the first names in alphabetical order, for an error message of one line."""
    ordered = [printable(str(name)) for name in sorted(map(str, names))[: SHOWN + 1]]
    short = [name if len(name) <= LONGEST else f"{name[:LONGEST]}..." for name in ordered[:SHOWN]]
    return ", ".join(short) + ", ..." * (len(ordered) > SHOWN)


def check_finite(tensors: Mapping[str, Any], *, where: str) -> None:
    """Check that no floating-point tensor contains NaN or infinity, also after float32 rounding.

    Raises:
        MidwayError: A tensor contains one; the message names the tensor.

    """
    for name, tensor in tensors.items():
        if isinstance(tensor, Tensor) and tensor.is_floating_point() and not is_finite(tensor):
            raise MidwayError(
                f"{where}: its tensor {shown([name])} has values that are not finite; take "
                "weights from before the training diverged, or fetch the file again"
            )


def is_finite(tensor: Tensor) -> bool:
    """Return whether all values are finite in float32, the type of our modules."""
    return bool(torch.isfinite(tensor.detach().to(torch.float32)).all())


def _has_type(found: object, own: Tensor) -> bool:
    if not isinstance(found, Tensor) or found.layout != torch.strided or found.is_meta:
        return False
    return found.is_floating_point() == own.is_floating_point() and not found.is_complex()


def _has_shape(found: object, own: Tensor) -> bool:
    return not isinstance(found, Tensor) or found.shape == own.shape
