"""Columns of Parquet tables from files of unknown origin as arrays."""

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from midway.data.arrays import MAX_BYTES
from midway.data.files import open_binary
from midway.errors import MidwayError, one_line

if TYPE_CHECKING:
    import pyarrow as pa

_MAX_VALUE_BYTES = 8


def read_columns(
    location: str, choose: Callable[[list[str]], Sequence[str]]
) -> dict[str, NDArray[Any]]:
    """Read columns of numbers from a Parquet table; lists of one length become further axes.

    Args:
        location: Path or URL.
        choose: Function that returns the names of the wanted columns out of all.

    Returns:
        Arrays (rows, ...) by name.

    Raises:
        MidwayError: pyarrow is not installed.
        ValueError: The table is damaged, or a column is missing or is not such an array.
        OSError: The file cannot be read.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MidwayError(
            f"{location}: Parquet needs pyarrow; run `pip install 'midway-network[lerobot]'`"
        ) from None
    try:
        with open_binary(location) as file, pq.ParquetFile(file) as table:
            wanted = choose(table.schema_arrow.names)
            missing = [name for name in wanted if name not in table.schema_arrow.names]
            if missing:
                raise ValueError(f"no column {', '.join(missing)}")
            # Runs of equal values compress without bound.
            groups = [table.metadata.row_group(n) for n in range(table.metadata.num_row_groups)]
            columns = [group.column(n) for group in groups for n in range(group.num_columns)]
            # Values, not rows: a row may contain a list of any length.
            starts = tuple(f"{name}." for name in wanted)
            values = sum(c.num_values for c in columns if f"{c.path_in_schema}.".startswith(starts))
            if values * _MAX_VALUE_BYTES > MAX_BYTES:
                raise ValueError(f"{values} values")
            read = table.read(columns=list(wanted), use_threads=False)
            return {name: _array_of(read.column(name).combine_chunks()) for name in wanted}
    except pa.ArrowException as error:
        raise ValueError(one_line(error)) from error


def _array_of(values: "pa.Array") -> NDArray[Any]:
    """Return an array (rows, ...) of numbers.

    Raises:
        ValueError: Values are missing, of another type, or lists of several lengths.
    """
    import pyarrow as pa

    shape = [len(values)]
    while pa.types.is_list(values.type) or _is_other_list(values.type):
        lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
        if values.null_count or len(lengths) > 1:
            raise ValueError("lists of several lengths")
        shape.append(int(lengths[0]) if len(lengths) else 0)
        values = values.flatten()
    is_number = pa.types.is_floating(values.type) or pa.types.is_integer(values.type)
    if not (is_number or pa.types.is_boolean(values.type)) or values.null_count:
        raise ValueError(f"values of type {values.type}, or none")
    if math.prod(shape) != len(values):
        raise ValueError("lists of several lengths")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _is_other_list(kind: "pa.DataType") -> bool:
    import pyarrow as pa

    return pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
