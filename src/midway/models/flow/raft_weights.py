"""Weights of RAFT, in files with torchvision's names or those of the original."""

import re
from pathlib import Path

from midway.errors import MidwayError
from midway.models.flow.raft import Raft
from midway.models.weights.check import check_tensors, meta_state, shown
from midway.models.weights.files import read_weights

_ORIGINAL = (
    (r"^(f|c)(?:eature|ontext)_encoder\.", r"\1net."),
    (r"net\.convnormrelu\.0\.", "net.conv1."),
    (r"net\.convnormrelu\.1\.", "net.norm1."),
    (r"\.convnormrelu(\d)\.0\.", r".conv\1."),
    (r"\.convnormrelu(\d)\.1\.", r".norm\1."),
    (r"net\.conv\.", "net.conv2."),
    (r"motion_encoder\.conv(c|f)(?:orr|low)(\d)\.0\.", r"encoder.conv\1\2."),
    (r"motion_encoder\.conv\.0\.", "encoder.conv."),
    (r"recurrent_block\.convgru(\d)\.conv(\w)\.", r"gru.conv\2\1."),
    (r"^mask_predictor\.convrelu\.0\.", "update_block.mask.0."),
    (r"^mask_predictor\.conv\.", "update_block.mask.2."),
)
"""Pattern in torchvision's name, and replacement in the original's."""
_ALIAS = re.compile(r"layer\d\.\d\.norm3\.")
"""Second name of the norm of a shortcut in the original's files."""


def load_raft(path: str | Path, *, iterations: int = 12) -> Raft:
    """Load RAFT (large) from a file, such as raft-things.pth or torchvision's raft_large.

    Args:
        path: As for `--network`; names may have a prefix, such as ``module.``.
        iterations: Number of refinements.

    Returns:
        The network in evaluation mode, frozen.

    Raises:
        MidwayError: There is no such file, or its tensors do not match; the message names them.

    """
    file = read_weights(path)
    where, state = str(file.path), meta_state(Raft)
    for layout in (str, original_name):
        anchor = layout("feature_encoder.conv.weight")
        found = [n for n in file.tensors if f".{n}".endswith(f".{anchor}")]
        if found:
            prefix = min(found, key=len).removesuffix(anchor)
            break
    else:
        raise MidwayError(
            f"{where}: no RAFT in it, but {shown(file.tensors)}; give raft-things.pth or "
            "torchvision's raft_large"
        )
    in_file = {f"{prefix}{layout(name)}": name for name in state}
    given = {n: t for n, t in file.tensors.items() if n.startswith(prefix) and not _ALIAS.search(n)}
    named = {theirs: state[ours] for theirs, ours in in_file.items()}
    check_tensors(named, given, where=where, what="RAFT (large)")
    network = Raft(iterations=iterations)
    network.load_state_dict({in_file[name]: tensor for name, tensor in given.items()})
    return network.requires_grad_(False).eval()


def original_name(name: str) -> str:
    """Return the name of a tensor in the original's files, without prefix.

    Examples:
        >>> original_name("update_block.recurrent_block.convgru2.convz.bias")
        'update_block.gru.convz2.bias'

    """
    for pattern, replacement in _ORIGINAL:
        name = re.sub(pattern, replacement, name)
    return name
