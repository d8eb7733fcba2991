"""Parquet tables: a small file whose lists unpack to gigabytes is refused."""

from pathlib import Path

import numpy as np
import pytest

from midway.data import tables

pa = pytest.importorskip("pyarrow")


def test_the_limit_counts_the_values_of_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    import pyarrow.parquet as parquet

    path = tmp_path / "bomb.parquet"
    column = pa.array([np.zeros(100_000).tolist()] * 2)
    parquet.write_table(pa.table({"action": column, "index": [0, 1]}), path)
    monkeypatch.setattr(tables, "MAX_BYTES", 10_000)
    with pytest.raises(ValueError, match="200000 values"):
        tables.read_columns(str(path), lambda names: ["action"])
    assert tables.read_columns(str(path), lambda names: ["index"])["index"].tolist() == [0, 1]
