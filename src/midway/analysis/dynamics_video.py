"""What the dynamics say of a video from frame to frame: gates and motion latents.

Frames are seen in pairs, each as target and then as source. The networks are trained on gaps of
half a second to a second: frames at 2 a second are what they know.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from midway.analysis.inputs import fit
from midway.analysis.tracking import Frames, check_length
from midway.atomic import write_atomically
from midway.errors import MidwayError
from midway.models.dynamics import LevelOutput
from midway.models.midway import MidwayNetwork
from midway.nn.eval_mode import evaluating


def gate_means(
    network: MidwayNetwork, frames: Frames, *, short_side: int = 0
) -> dict[int, Float[Tensor, "pairs blocks"]]:
    """Mean gate of each forward block, by level, for each frame and the next (eq. 2).

    A gate near 1 keeps what is where it was, a gate near 0 lets attention bring something else.
    Blocks are those that have a gate: 2, 3 and so on.

    Args:
        network: With gates.
        frames: Of a video, at least two.
        short_side: As for `fit`.

    Raises:
        MidwayError: The network has no gates, or there is one frame.

    """
    dynamics = network.config.dynamics
    if not dynamics.gates or dynamics.forward_depth == 1:
        raise MidwayError("the network has no gates; give one that was trained with them")
    means: dict[int, list[Tensor]] = {level: [] for level in dynamics.levels}
    for _, levels in pair_outputs(network, frames, short_side=short_side):
        for level, found in means.items():
            gates = [gate.float().mean().cpu() for gate in levels[level].gates]
            found.append(torch.stack(gates))
    return {level: torch.stack(found) for level, found in means.items()}


def write_motion_latents(
    network: MidwayNetwork,
    frames: Frames,
    seconds: Sequence[float],
    path: Path,
    *,
    short_side: int = 0,
) -> int:
    """Write the motion latents of each frame and the next to a Parquet file.

    A row is a latent: `source_seconds`, `target_seconds`, `level`, `latent` (its number from 0) and
    `values`, as many floats as the midway path is wide.

    Args:
        network: With latent dynamics.
        frames: Of a video, at least two.
        seconds: When each is shown.
        path: File to write.
        short_side: As for `fit`.

    Returns:
        How many rows were written.

    Raises:
        MidwayError: Pyarrow is missing, the network has no latents, or there is one frame.

    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MidwayError(
            f"{path}: Parquet needs pyarrow; run `pip install 'midway-network[store]'`"
        ) from None
    if not network.config.dynamics.latent_dynamics:
        raise MidwayError("the network has no motion latents; give one with latent dynamics")
    width = network.config.dynamics.midway_width
    schema = pa.schema(
        [
            ("source_seconds", pa.float64()),
            ("target_seconds", pa.float64()),
            ("level", pa.int16()),
            ("latent", pa.int16()),
            ("values", pa.list_(pa.float32(), width)),
        ]
    )
    tables = [
        pa.Table.from_pylist(_rows(seconds[number], seconds[number + 1], levels), schema=schema)
        for number, levels in pair_outputs(network, frames, short_side=short_side)
    ]
    table = pa.concat_tables(tables)
    write_atomically(path, lambda file: pq.write_table(table, file))
    return table.num_rows


def pair_outputs(
    network: MidwayNetwork, frames: Frames, *, short_side: int = 0
) -> Iterator[tuple[int, dict[int, LevelOutput]]]:
    """Number of each frame but the last, and what the network says of it and the next, by level.

    Raises:
        MidwayError: There is one frame.

    """
    check_length(frames)
    for number in range(len(frames) - 1):
        yield number, pair_output(network, frames, number, short_side=short_side)


def pair_output(
    network: MidwayNetwork, frames: Frames, number: int, *, short_side: int = 0
) -> dict[int, LevelOutput]:
    """What the network says of the frame of this number and the next, by level."""
    source, target = (
        fit(frames[each][None], network, short_side=short_side).images
        for each in (number, number + 1)
    )
    with evaluating(network):
        return network(source, target).levels


def _rows(
    source_seconds: float, target_seconds: float, levels: dict[int, LevelOutput]
) -> list[dict[str, Any]]:
    return [
        {
            "source_seconds": source_seconds,
            "target_seconds": target_seconds,
            "level": level,
            "latent": latent,
            "values": values,
        }
        for level, output in sorted(levels.items())
        for latent, values in enumerate(output.motion_latents[0].float().cpu().numpy())
    ]
