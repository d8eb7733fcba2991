"""Encoders inside PooDLe's checkpoints, with our names of their tensors."""

from collections.abc import Mapping

from torch import Tensor

from midway.errors import MidwayError
from midway.models.weights.unwrap import Unwrapped

ANCHOR = "decoder_laterals.0.weight"
"""Tensor by which a file is known for PooDLe's."""
DECODER = "_decoder"
"""End of the names of encoders that include the spatial decoder."""
NAMES = ("teacher", "student", "teacher_decoder", "student_decoder")
"""Encoders of a file: ResNets, and ResNets with the decoder."""


def unwrap_poodle(tensors: Mapping[str, Tensor], wanted: str, *, where: str) -> Unwrapped | None:
    """Find an encoder in the tensors of a file, if it is one of PooDLe's.

    Args:
        tensors: By their names in the file, such as ``model.teacher_backbone.conv1.weight``.
        wanted: One of `NAMES`.
        where: Name of the file, for error messages.

    Returns:
        The encoder, or None if the file is not PooDLe's. `others` lists the first part of the names
        of all other tensors.

    Raises:
        MidwayError: There is no such encoder.

    """
    # The teacher's name ends in the anchor too.
    found = [n for n in tensors if f".{n}".endswith(f".{ANCHOR}")]
    if not found:
        return None
    if wanted not in NAMES:
        raise MidwayError(
            f"{where}: no encoder '{wanted}'; there are {', '.join(NAMES)}: choose by --weights"
        )
    root = found[0].removesuffix(ANCHOR)
    owner = "teacher_" if wanted.startswith("teacher") else ""
    renamed = {f"{root}{owner}backbone.": ""}
    if wanted.endswith(DECODER):
        renamed = {f"{root}{owner}backbone.": "backbone."}
        renamed |= {f"{root}{owner}decoder_{part}.": f"{part}." for part in ("blocks", "laterals")}
    kept: dict[str, Tensor] = {}
    others: set[str] = set()
    for name, tensor in tensors.items():
        prefix = next((prefix for prefix in renamed if name.startswith(prefix)), None)
        if prefix is None:
            others.add(name.removeprefix(root).partition(".")[0])
        else:
            kept[f"{renamed[prefix]}{name.removeprefix(prefix)}"] = tensor
    return Unwrapped(tensors=kept, prefix=f"{root}{owner}backbone.", others=tuple(sorted(others)))
