"""Dynamics of a video, from each frame to the next: gate means and motion latents.

Consecutive frames form a pair of source and target. The networks are trained with gaps of 0.5 to 1
second, so videos should be sampled at about 2 frames per second.
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
    """Compute the mean gate (eq. 2) of each forward block for each pair of consecutive frames.

    A gate near 1 preserves the feature at its position; a gate near 0 lets attention replace it.
    The first block has no gate, so columns are blocks 2, 3 and so on.

    Args:
        network: Network with gates.
        frames: At least two frames of a video.
        short_side: Shorter side of the network's input in pixels, see `fit`.

    Returns:
        Means from 0 to 1 of each level.

    Raises:
        MidwayError: The network has no gates, or there are fewer than two frames.

    """
    dynamics = network.config.dynamics
    if not dynamics.gates or dynamics.forward_depth == 1:
        raise MidwayError("network: has no gates; give one that was trained with them")
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
    """Write the motion latents of each pair of consecutive frames to a Parquet file.

    A row is one latent: `source_seconds`, `target_seconds`, `level`, `latent` (its index from 0)
    and `values` (float32, as many as the width of the midway path).

    Args:
        network: Network with latent dynamics.
        frames: At least two frames of a video.
        seconds: Timestamp of each frame.
        path: File to write.
        short_side: Shorter side of the network's input in pixels, see `fit`.

    Returns:
        Number of rows written.

    Raises:
        MidwayError: Pyarrow is not installed, the network has no latents, or there are fewer than
            two frames.

    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MidwayError(
            f"{path}: Parquet needs pyarrow; run `pip install 'midway-network[store]'`"
        ) from None
    if not network.config.dynamics.latent_dynamics:
        raise MidwayError("network: has no motion latents; give one with latent dynamics")
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
    """Yield the index of each frame but the last, and the outputs of its pair with the next frame.

    Raises:
        MidwayError: There are fewer than two frames.

    """
    check_length(frames)
    for number in range(len(frames) - 1):
        yield number, pair_output(network, frames, number, short_side=short_side)


def pair_output(
    network: MidwayNetwork, frames: Frames, number: int, *, short_side: int = 0
) -> dict[int, LevelOutput]:
    """Return the network's outputs for frames `number` and `number + 1`, by level."""
    source, target = (
        fit(frames[each][None], network, short_side=short_side).images
        for each in (number, number + 1)
    )
    with evaluating(network):
        return network(source, target).levels


def _rows(
    source_seconds: float, target_seconds: float, levels: dict[int, LevelOutput]
) -> list[dict[str, Any]]:
    """Return the rows of one pair, one per latent."""
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
