"""Layout of PooDLe's checkpoints, which contain two ResNets, two decoders, heads and RAFT."""

from collections.abc import Mapping

from torch import Tensor

from midway.errors import MidwayError
from midway.models.weights.layouts.families import POODLE
from midway.models.weights.layouts.recognise import Recognised

ANCHOR = "decoder_laterals.0.weight"
"""Tensor by which a file is known for PooDLe's."""
DECODER = "_decoder"
"""End of the names of encoders that include the spatial decoder."""
ENCODERS = ("teacher", "student", f"teacher{DECODER}", f"student{DECODER}")
"""Encoders of a file: ResNets, and ResNets with the decoder."""


def recognise_poodle(
    tensors: Mapping[str, Tensor], wanted: str, *, where: str
) -> tuple[Recognised, str] | None:
    """Find an encoder in the tensors of a file, if it is one of PooDLe's.

    Args:
        tensors: By their names in the file, such as ``model.teacher_backbone.conv1.weight``.
        wanted: One of `ENCODERS`.
        where: Name of the file, for error messages.

    Returns:
        The encoder with our names and its place in the file, or None if the file is not PooDLe's.

    Raises:
        MidwayError: There is no such encoder.

    """
    # The name of the teacher's tensor ends in the anchor too, but not after a dot.
    found = [name for name in tensors if f".{name}".endswith(f".{ANCHOR}")]
    if not found:
        return None
    if wanted not in ENCODERS:
        raise MidwayError(
            f"{where}: no encoder '{wanted}'; there are {', '.join(ENCODERS)}: choose by --weights"
        )
    root = found[0].removesuffix(ANCHOR)
    owner = "teacher_" if wanted.startswith("teacher") else ""
    has_decoder = wanted.endswith(DECODER)
    # Beginning of the names in the file, and here.
    ours = {f"{root}{owner}backbone.": "backbone." if has_decoder else ""}
    if has_decoder:
        ours |= {f"{root}{owner}decoder_{part}.": f"{part}." for part in ("blocks", "laterals")}
    kept: dict[str, Tensor] = {}
    left_out: dict[str, list[str]] = {}
    for name, tensor in tensors.items():
        start = next((each for each in ours if name.startswith(each)), None)
        if start is None:
            left_out.setdefault(name.removeprefix(root).partition(".")[0], []).append(name)
        else:
            kept[f"{ours[start]}{name.removeprefix(start)}"] = tensor
    recognised = Recognised(
        tensors=kept,
        family=POODLE,
        layout=f"{POODLE.name} checkpoint",
        config={},
        left_out=left_out,
    )
    return recognised, f"{root}{owner}backbone"
