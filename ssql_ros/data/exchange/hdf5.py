"""The HDF5 of D4RL and DSRL: seven arrays of N rows, what else there is under infos/; attributes say what it is."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.data.data_set import DataSet
from ssql_ros.data.exchange import Foreign
from ssql_ros.data.exchange.columns import ends_of, facts_of, renamed
from ssql_ros.processes.files import write_atomically

ATTRIBUTE = "ssql_ros"


def write(data: DataSet, out: Path) -> None:
    """Write a data set as one file."""
    import h5py

    ends, terminal = ends_of(data["episode"]), np.asarray(data["terminal"], bool)
    arrays: dict[str, Any] = {
        "observations": data["observation"],
        "actions": data["action"],
        "rewards": data["reward"],
        "next_observations": data["next_observation"],
        "costs": np.asarray(data["incident"], np.float32),
        "terminals": terminal,
        # An episode that did not end for good was ended by time, or by whoever recorded it.
        "timeouts": ends & ~terminal,
        "infos/margin": data["margin"],
        "infos/stamp": data["stamp"],
    }
    memory = io.BytesIO()
    with h5py.File(memory, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=np.asarray(values), compression="gzip")
        file.attrs[ATTRIBUTE] = json.dumps(facts_of(data))
    write_atomically(out, memory.getvalue())


def read(path: Path) -> Foreign:
    """Read one file. Raises ValueError: it is none, or an array is missing."""
    import h5py

    try:
        with h5py.File(path, "r") as file:
            names: list[str] = []
            file.visititems(lambda name, item: names.append(name) if isinstance(item, h5py.Dataset) else None)
            found = renamed([name for name in names if file[name].shape[:1]], path)
            columns = {ours: np.asarray(file[theirs]) for ours, theirs in found.items()}
            facts = json.loads(file.attrs.get(ATTRIBUTE, "{}"))
    except (OSError, KeyError, TypeError) as error:
        raise ValueError(f"{path}: cannot be read as HDF5: {error}") from error
    for name, values in columns.items():
        if values.dtype.kind not in "fiub":
            raise ValueError(f"{path}: {found[name]}: expected numbers, got {values.dtype}")
    return Foreign(columns, facts)
