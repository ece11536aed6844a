"""Plain Parquet: a row a transition; vectors are lists of fixed length, the manifest is the schema's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.data.data_set import DataSet
from ssql_ros.data.exchange import Foreign
from ssql_ros.data.exchange.columns import facts_of, renamed
from ssql_ros.processes.files import write_atomically

KEY = b"ssql_ros"


def as_arrow(values: np.ndarray) -> Any:
    """Return a column (N,) or (N, width) as an arrow array."""
    import pyarrow as pa

    flat = pa.array(np.ascontiguousarray(values).reshape(-1))
    return flat if values.ndim == 1 else pa.FixedSizeListArray.from_arrays(flat, values.shape[1])


def as_numpy(table: Any, name: str, where: Path) -> np.ndarray:
    """Return a column of numbers, (N,) or (N, width). Raises ValueError: it holds something else."""
    import pyarrow as pa

    column = table.column(name).combine_chunks()
    lists = pa.types.is_list(column.type) or pa.types.is_large_list(column.type)
    lists = lists or pa.types.is_fixed_size_list(column.type)
    values = column.flatten() if lists else column
    kind = values.type
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)) or column.null_count:
        raise ValueError(
            f"{where}: column {name!r}: expected numbers in every row, or lists of them, got {column.type}"
        )
    found = values.to_numpy(zero_copy_only=False)
    if not lists:
        return found
    if len(column) == 0 or len(found) % len(column):
        raise ValueError(f"{where}: column {name!r}: expected lists of one length")
    if not pa.types.is_fixed_size_list(column.type):
        lengths = column.value_lengths().to_numpy(zero_copy_only=False)
        if (lengths != lengths[0]).any():
            raise ValueError(
                f"{where}: column {name!r}: expected lists of one length, got {min(lengths)} to {max(lengths)}"
            )
    return found.reshape(len(column), -1)


def write(data: DataSet, out: Path) -> None:
    """Write a data set as one file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    names = list(data.names)
    table = pa.Table.from_arrays([as_arrow(np.asarray(data[name])) for name in names], names)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({KEY: json.dumps(facts_of(data)).encode()}), sink)
    write_atomically(out, sink.getvalue().to_pybytes())


def read(path: Path) -> Foreign:
    """Read one file; columns by our names, or by those of D4RL and Minari. Raises ValueError: it is none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
        facts = json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
    except (OSError, pa.ArrowException, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
    found = renamed(table.column_names, path)
    return Foreign({ours: as_numpy(table, theirs, path) for ours, theirs in found.items()}, facts)
