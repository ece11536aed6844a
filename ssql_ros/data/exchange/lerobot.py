"""LeRobotDataset v3.0, without videos: Parquet of frames and of episodes, and the JSON that describes both.

Layout as in lerobot's `datasets` (codebase_version v3.0): meta/info.json, meta/stats.json, meta/tasks.parquet,
meta/episodes/chunk-000/file-000.parquet, data/chunk-000/file-000.parquet. A frame is a step; what a frame cannot say of
it has columns of its own, which lerobot reads as any other feature.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ssql_ros.data.data_set import DataSet
from ssql_ros.data.exchange import Foreign
from ssql_ros.data.exchange.columns import PERIOD, ends_of, facts_of, renamed
from ssql_ros.data.exchange.parquet import as_arrow, as_numpy
from ssql_ros.processes.files import write_atomically

VERSION = "v3.0"
_DATA = "data/chunk-{chunk_index:03d}/file-{file_index:03d}.parquet"
_VIDEO = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
_EPISODES = "meta/episodes/chunk-000/file-000.parquet"
_INDICES = ("timestamp", "frame_index", "episode_index", "index", "task_index")


def write(data: DataSet, out: Path) -> None:
    """Write a data set as a folder."""
    rows, ends = len(data), ends_of(data["episode"])
    lengths = np.diff(np.append(-1, np.flatnonzero(ends)))
    firsts = np.append(0, np.cumsum(lengths)[:-1])
    number = np.repeat(np.arange(len(lengths)), lengths)
    frame = np.arange(rows) - firsts[number]
    facts = facts_of(data)
    period = float(facts.get("control_period") or PERIOD)
    columns = {
        "observation.state": np.asarray(data["observation"], np.float32),
        "action": np.asarray(data["action"], np.float32),
        "next.reward": np.asarray(data["reward"], np.float32),
        "next.done": ends,
        "next.terminal": np.asarray(data["terminal"], bool),
        "next.incident": np.asarray(data["incident"], bool),
        "observation.margin": np.asarray(data["margin"], np.float32),
        "next.observation.state": np.asarray(data["next_observation"], np.float32),
        "timestamp": (frame * period).astype(np.float32),
        "frame_index": frame,
        "episode_index": number,
        "index": np.arange(rows),
        "task_index": np.zeros(rows, np.int64),
    }
    task = str(facts.get("task", "as recorded"))
    spread = {name: _spread(values) for name, values in columns.items() if values.dtype != bool}
    episodes = {
        "episode_index": np.arange(len(lengths)),
        "tasks": [[task]] * len(lengths),
        "length": lengths,
        "dataset_from_index": firsts,
        "dataset_to_index": firsts + lengths,
        **{name: np.zeros(len(lengths), np.int64) for name in _PLACES},
    }
    # What is incomplete has no info.json, by which everybody begins to read.
    _write_parquet(out / _DATA.format(chunk_index=0, file_index=0), columns, {})
    _write_parquet(out / _EPISODES, episodes, {})
    _write_tasks(out / "meta/tasks.parquet", task)
    write_atomically(out / "meta/stats.json", json.dumps(spread, indent=1).encode())
    info = {
        "codebase_version": VERSION,
        "robot_type": str(facts.get("contract_id", "")) or None,
        "total_episodes": len(lengths),
        "total_frames": rows,
        "total_tasks": 1,
        "chunks_size": 1000,
        "data_files_size_in_mb": 100,
        "video_files_size_in_mb": 200,
        "fps": max(1, round(1.0 / period)),
        "splits": {"train": f"0:{len(lengths)}"},
        "data_path": _DATA,
        "video_path": _VIDEO,
        "features": {name: _feature(values) for name, values in columns.items()},
        "ssql_ros": facts,
    }
    write_atomically(out / "meta/info.json", json.dumps(info, indent=1).encode())


_PLACES = ("data/chunk_index", "data/file_index", "meta/episodes/chunk_index", "meta/episodes/file_index")


def _feature(values: np.ndarray) -> dict[str, Any]:
    return {"dtype": str(values.dtype), "shape": list(values.shape[1:] or (1,)), "names": None}


def _spread(values: np.ndarray) -> dict[str, list[Any]]:
    numbers = np.asarray(values, float).reshape(len(values), -1)
    found = {"min": numbers.min(axis=0), "max": numbers.max(axis=0), "mean": numbers.mean(axis=0)}
    return {name: v.tolist() for name, v in {**found, "std": numbers.std(axis=0)}.items()} | {"count": [len(values)]}


def _write_parquet(path: Path, columns: dict[str, Any], metadata: dict[bytes, bytes]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [as_arrow(values) if isinstance(values, np.ndarray) else pa.array(values) for values in columns.values()]
    sink = pa.BufferOutputStream()
    table = pa.Table.from_arrays(arrays, list(columns))
    pq.write_table(table.replace_schema_metadata(metadata) if metadata else table, sink)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, sink.getvalue().to_pybytes())


def _write_tasks(path: Path, task: str) -> None:
    """Write the tasks as pandas has them: the text is the index, which the schema's metadata says."""
    column = {"numpy_type": "object", "pandas_type": "unicode", "metadata": None}
    told = {
        "index_columns": ["__index_level_0__"],
        "column_indexes": [],
        "columns": [
            {**column, "name": "task_index", "field_name": "task_index", "pandas_type": "int64", "numpy_type": "int64"},
            {**column, "name": None, "field_name": "__index_level_0__"},
        ],
        "creator": {"library": "pyarrow", "version": ""},
        "pandas_version": "2.0.0",
    }
    columns = {"task_index": np.zeros(1, np.int64), "__index_level_0__": [task]}
    _write_parquet(path, columns, {b"pandas": json.dumps(told).encode()})


def read(path: Path) -> Foreign:
    """Read a folder. Raises ValueError: it is none of this version, or a file is missing or damaged."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    meta = path / "meta/info.json"
    try:
        info = json.loads(meta.read_text(encoding="utf-8"))
        version, fps, facts = info["codebase_version"], float(info["fps"]), dict(info.get("ssql_ros", {}))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{meta}: cannot be read as what describes a LeRobotDataset: {error!r}") from error
    if version != VERSION:
        raise ValueError(
            f"{meta}: codebase_version: expected {VERSION}, got {version}; lerobot converts older ones "
            "(lerobot.datasets.v30.convert_dataset_v21_to_v30)"
        )
    files = sorted(path.glob("data/chunk-*/file-*.parquet"))
    if not files:
        raise ValueError(f"{path}: expected files data/chunk-*/file-*.parquet, found none")
    try:
        table = pa.concat_tables([pq.read_table(file) for file in files])
    except (OSError, pa.ArrowException) as error:
        raise ValueError(f"{path}: cannot be read as Parquet: {error}") from error
    found = {ours: theirs for ours, theirs in renamed(table.column_names, path).items() if theirs not in _INDICES[:2]}
    columns = {ours: as_numpy(table, theirs, path) for ours, theirs in found.items()}
    return Foreign(columns, {"control_period": 1.0 / fps, **facts})
