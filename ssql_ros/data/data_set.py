"""A data set of transitions on disk: one .npy a column, memory-mapped, and a manifest. No ROS, no torch.

Whoever collects writes this one format, out of bags or of a simulated world, and whoever learns offline reads it, as
transitions (logged_transitions.py) or over n steps (logged_steps.py). Written without holding more than a block of it,
under a temporary name until it is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import glob
import json
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

FORMAT = 2
READABLE = (1, 2)  # 1 has other names for what follows, and may lack the columns next_observation and incident
MANIFEST = "manifest.json"
BLOCK = 4096  # rows
_PARTIAL = ".partial"  # ends the name of a folder that is not complete
_FORMER = {"next_observation": "following", "next_context": "following_context"}
_HEADER = 128  # bytes of a .npy's header as written here, before and after the number of rows is known


class DataSetError(ValueError):
    """A data set cannot be written, read or used; the text names the file, what was expected and what came."""


@dataclass(frozen=True)
class Column:
    """One column: numbers a row (0: a scalar), and their type."""

    width: int
    dtype: str = "float32"


def transition_columns(
    n_observation: int, n_action: int, n_context: int = 0, interventions: bool = False
) -> dict[str, Column]:
    """Return the columns of transitions.

    observation, action, reward, next_observation: s_t, a_t executed, r of the step, s_(t+1); margin: l(s_t); incident:
    I(s_(t+1)); terminal: the episode ended for good in s_(t+1); episode: a number for all rows of one; stamp: ns, of
    s_t; context, next_context: the behaviour policy's, where it was recorded;
    intervention: an operator had the robot, where one could.
    """
    columns = {
        "observation": Column(n_observation),
        "action": Column(n_action),
        "reward": Column(0),
        "next_observation": Column(n_observation),
        "margin": Column(0),
        "incident": Column(0, "bool"),
        "terminal": Column(0, "bool"),
        "episode": Column(0, "int64"),
        "stamp": Column(0, "int64"),
    }
    if n_context:
        columns |= {"context": Column(n_context), "next_context": Column(n_context)}
    if interventions:
        columns["intervention"] = Column(0, "bool")
    return columns


class DataSetWriter:
    """Writes a data set; use as a context manager. On an error nothing is left.

    Args:
        path: folder to make.

    Raises:
        DataSetError: the folder is there already, or cannot be written.
    """

    def __init__(self, path: Path, columns: Mapping[str, Column]) -> None:
        self.path, self.columns, self.rows = Path(path), dict(columns), 0
        if self.path.exists():
            raise DataSetError(f"{self.path}: is there already; a data set never overwrites another")
        self._files: dict[str, BinaryIO] = {}
        self._blocks = {
            name: np.empty((BLOCK, column.width) if column.width else (BLOCK,), column.dtype)
            for name, column in self.columns.items()
        }
        self._filled = 0
        self._folder: Path | None = None
        self._lock: int | None = None
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # A name of its own: another process may be writing to the same place, and one of them will be refused.
            _remove_abandoned(self.path)
            self._folder = Path(tempfile.mkdtemp(prefix=f".{self.path.name}.", suffix=_PARTIAL, dir=self.path.parent))
            self._folder.chmod(0o755)
            # Held as long as this process lives: what nobody holds was left by one that was killed.
            self._lock = os.open(self._folder, os.O_RDONLY)
            with contextlib.suppress(OSError):  # some file systems have no locks
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            for name in self.columns:
                self._files[name] = (self._folder / f"{name}.npy").open("wb")
                self._files[name].write(b"\0" * _HEADER)
        except OSError as error:
            self.__exit__()
            raise DataSetError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def add(self, row: Mapping[str, Any]) -> None:
        """Add one row: a value for every column, by its name or its former one."""
        i = self._filled
        for name, block in self._blocks.items():
            block[i] = row[name] if name in row else row[_FORMER[name]]
        self._filled += 1
        self.rows += 1
        if self._filled == BLOCK:
            self._flush()

    def extend(self, columns: Mapping[str, np.ndarray]) -> None:
        """Add many rows: arrays (N, ...) for every column."""
        done, count = 0, len(next(iter(columns.values())))
        while done < count:
            take = min(BLOCK - self._filled, count - done)
            for name, block in self._blocks.items():
                block[self._filled : self._filled + take] = columns[name][done : done + take]
            self._filled, self.rows, done = self._filled + take, self.rows + take, done + take
            if self._filled == BLOCK:
                self._flush()

    def _flush(self) -> None:
        try:
            for name, block in self._blocks.items():
                self._files[name].write(block[: self._filled].tobytes())
        except OSError as error:
            raise DataSetError(f"{self.path}: cannot be written: {error.strerror or error}") from error
        self._filled = 0

    def finish(self, facts: Mapping[str, Any]) -> None:
        """Make it complete: headers, manifest, and its name."""
        self._flush()
        try:
            for name, file in self._files.items():
                file.seek(0)
                file.write(_npy_header(self.columns[name], self.rows))
                file.flush()
                os.fsync(file.fileno())
                file.close()
            columns = {
                name: {"dtype": column.dtype, "shape": [self.rows, *([column.width] if column.width else [])]}
                for name, column in self.columns.items()
            }
            document = {"format": FORMAT, "rows": self.rows, "columns": columns, **facts}
            assert self._folder is not None
            assert self._lock is not None
            with (self._folder / MANIFEST).open("w", encoding="utf-8") as manifest:
                json.dump(document, manifest, indent=1)
                manifest.flush()
                os.fsync(manifest.fileno())
            # The files' names, and then the folder's: after a loss of power it is complete or not there.
            os.fsync(self._lock)
            self._folder.rename(self.path)
            parent = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(parent)
            finally:
                os.close(parent)
        except OSError as error:
            raise DataSetError(f"{self.path}: cannot be written: {error.strerror or error}") from error

    def __enter__(self) -> DataSetWriter:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Leave nothing half written."""
        for file in self._files.values():
            # What could not be written before cannot be now; the folder goes all the same.
            with contextlib.suppress(OSError):
                file.close()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def _remove_abandoned(path: Path) -> None:
    """Remove what a writer of the data set `path` left that was killed; one that still writes holds a lock."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{_PARTIAL}"):
        with contextlib.suppress(OSError):
            held = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
            try:
                fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(held)


def _npy_header(column: Column, rows: int) -> bytes:
    """Return the header of a .npy file (format 1.0), padded to a fixed length."""
    shape = (rows, column.width) if column.width else (rows,)
    described = {"descr": np.lib.format.dtype_to_descr(np.dtype(column.dtype)), "fortran_order": False, "shape": shape}
    text = repr(described).encode()
    return b"\x93NUMPY\x01\x00" + (_HEADER - 10).to_bytes(2, "little") + text.ljust(_HEADER - 11) + b"\n"


class DataSet:
    """A data set that is open for reading; columns are memory-mapped.

    Attributes:
        manifest: what it is and how it was made.

    Raises:
        DataSetError: a file is missing or damaged, or the columns are not those of the manifest.
    """

    def __init__(self, path: Path) -> None:
        self.path = Path(path)
        try:
            self.manifest: dict[str, Any] = json.loads((self.path / MANIFEST).read_text(encoding="utf-8"))
            found, self._rows = self.manifest["format"], int(self.manifest["rows"])
            told = {
                name: (tuple(entry["shape"]), np.dtype(entry["dtype"]))
                for name, entry in self.manifest["columns"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataSetError(f"{self.path}: expected a data set with a {MANIFEST}: {error!r}") from error
        if found not in READABLE:
            raise DataSetError(
                f"{self.path / MANIFEST}: expected format {' or '.join(map(str, READABLE))}, got {found!r}"
            )
        now = {former: name for name, former in _FORMER.items()}
        self._columns = {now.get(name, name): self._column(name, *entry) for name, entry in told.items()}

    def _column(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
        file = self.path / f"{name}.npy"
        if shape[:1] != (self._rows,):
            raise DataSetError(f"{self.path / MANIFEST}: expected {self._rows} rows of {name}, got shape {shape}")
        try:
            # An empty file cannot be mapped.
            column = np.load(file, mmap_mode="r" if self._rows else None, allow_pickle=False)
        except (OSError, ValueError, EOFError) as error:
            raise DataSetError(f"{file}: cannot be read as a column: {error}") from error
        if column.shape != shape or column.dtype != dtype:
            raise DataSetError(
                f"{file}: expected {dtype} of shape {shape}, as {MANIFEST} says, got {column.dtype} of {column.shape}"
            )
        return column

    def check_contract(self, contract_id: str) -> None:
        """Raise DataSetError where the rows were made by another contract than `contract_id`."""
        made_by = self.manifest.get("contract_id")
        if made_by != contract_id:
            raise DataSetError(f"{self.path}: was made by contract {made_by}, expected {contract_id}")

    def __len__(self) -> int:
        """Return the number of rows."""
        return self._rows

    def __getitem__(self, name: str) -> np.ndarray:
        """Return a column. Raises DataSetError: there is none of this name."""
        if name not in self._columns and self.manifest["format"] == 1 and name in ("next_observation", "incident"):
            again = self.manifest.get("command", "`ssql collect`")
            raise DataSetError(
                f"{self.path}: has no column {name!r}, as logs of simulated worlds had none: only safefql and "
                f"iql_lagrangian can learn from it; for others collect it again into another folder, by: {again}"
            )
        if name not in self._columns:
            raise DataSetError(f"{self.path}: has no column {name!r}; it has {', '.join(self._columns)}")
        return self._columns[name]

    @property
    def names(self) -> tuple[str, ...]:
        """Return the names of the columns."""
        return tuple(self._columns)

    def episodes(self) -> list[slice]:
        """Return the rows of each episode, in order."""
        numbers = np.asarray(self["episode"])
        if not len(numbers):
            return []
        cuts = np.flatnonzero(np.diff(numbers)) + 1
        return [slice(int(a), int(b)) for a, b in zip([0, *cuts], [*cuts, len(numbers)], strict=True)]

    def batch(self, size: int, rng: np.random.Generator, names: Sequence[str] = ()) -> dict[str, np.ndarray]:
        """Return `size` rows drawn uniformly with replacement: arrays (size, ...) by column.

        Args:
            names: of columns; empty: all.

        Raises:
            DataSetError: there is no row, or no column of a name.
        """
        if not self._rows:
            raise DataSetError(f"{self.path}: has no row to draw")
        # In order: neighbours on the disk are read together.
        rows = np.sort(rng.integers(self._rows, size=size))
        return {name: self[name][rows] for name in names or self.names}
