"""Data sets: what is written is read, what ends early leaves nothing, damage is named, batches are drawn evenly."""

import json
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ssql_ros.data.data_set import Column, DataSet, DataSetError, DataSetWriter, transition_columns


def rows_of(n: int) -> Iterator[dict]:
    for i in range(n):
        yield {"a": np.full(3, i), "b": i / 2, "c": i % 7 == 0, "episode": i // 10}


COLUMNS = {"a": Column(3), "b": Column(0), "c": Column(0, "bool"), "episode": Column(0, "int64")}


@pytest.mark.parametrize("n", [0, 1, 4096, 5000])
def test_what_is_written_is_read(tmp_path: Path, n: int) -> None:
    with DataSetWriter(tmp_path / "set", COLUMNS) as writer:
        for row in rows_of(n):
            writer.add(row)
        writer.finish({"told": "so"})
    data = DataSet(tmp_path / "set")
    assert len(data) == n
    assert data.manifest["told"] == "so"
    assert data["a"].shape == (n, 3)
    assert data["b"].tolist() == [i / 2 for i in range(n)]
    assert len(data.episodes()) == math.ceil(n / 10)


def test_what_ends_early_leaves_nothing_and_damage_is_named(tmp_path: Path) -> None:
    def fail() -> None:
        with DataSetWriter(tmp_path / "set", COLUMNS) as writer:
            writer.add(next(rows_of(1)))
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert list(tmp_path.iterdir()) == []
    with DataSetWriter(tmp_path / "set", COLUMNS) as writer:
        for row in rows_of(10):
            writer.add(row)
        writer.finish({})
    with pytest.raises(DataSetError, match="no column 'z'"):
        DataSet(tmp_path / "set")["z"]
    file = tmp_path / "set" / "a.npy"
    file.write_bytes(file.read_bytes()[:200])
    with pytest.raises(DataSetError, match=r"a\.npy"):
        DataSet(tmp_path / "set")
    file.unlink()
    with pytest.raises(DataSetError, match=r"a\.npy: cannot be read"):
        DataSet(tmp_path / "set")
    with pytest.raises(DataSetError, match="expected a data set"):
        DataSet(tmp_path)
    assert set(transition_columns(3, 2, 4)) >= {"context", "next_context"}


def test_a_manifest_that_is_not_of_these_files_is_refused(tmp_path: Path) -> None:
    with DataSetWriter(tmp_path / "set", COLUMNS) as writer:
        for row in rows_of(10):
            writer.add(row)
        writer.finish({"contract_id": "one"})
    DataSet(tmp_path / "set").check_contract("one")
    with pytest.raises(DataSetError, match="was made by contract one, expected other"):
        DataSet(tmp_path / "set").check_contract("other")
    file = tmp_path / "set" / "manifest.json"
    manifest = json.loads(file.read_text())
    for changed, fault in (
        ({"format": 99}, "expected format 1 or 2, got 99"),
        ({"rows": 11}, "expected 11 rows of a"),
        ({"rows": "many"}, "expected a data set with a"),
        ({"columns": {"a": {"dtype": "float64", "shape": [10, 3]}}}, "expected float64 of shape"),
    ):
        file.write_text(json.dumps({**manifest, **changed}))
        with pytest.raises(DataSetError, match=fault):
            DataSet(tmp_path / "set")


def test_batches_are_rows_drawn_evenly(tmp_path: Path) -> None:
    with DataSetWriter(tmp_path / "set", COLUMNS) as writer:
        for row in rows_of(20):
            writer.add(row)
        writer.finish({})
    data = DataSet(tmp_path / "set")
    batch = data.batch(20_000, np.random.default_rng(0), ["a", "b"])
    assert set(batch) == {"a", "b"}
    assert np.array_equal(batch["a"][:, 0] / 2, batch["b"])
    # 1,000 of each expected, with a standard deviation of 31.
    assert np.abs(np.bincount(batch["a"][:, 0].astype(int)) - 1000).max() < 160
    with DataSetWriter(tmp_path / "none", COLUMNS) as writer:
        writer.finish({})
    with pytest.raises(DataSetError, match="has no row to draw"):
        DataSet(tmp_path / "none").batch(1, np.random.default_rng(0))
