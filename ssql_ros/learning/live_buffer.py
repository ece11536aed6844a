"""The learner's memory on disk: transitions in chunks, each written whole, so that a restart loses but a second.

One process appends, others may read along. A chunk that cannot be read is set aside and said, never deleted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load, save

from ssql_ros.bundle import write_whole
from ssql_ros.transitions import LiveTransition

_COLUMNS = (
    "stamp",
    "observation",
    "context",
    "action",
    "reward",
    "following",
    "following_context",
    "incident",
    "first",
    "proposal",
)


@dataclass(frozen=True)
class Chunk:
    """N transitions, column by column: see `LiveTransition`; `incident` and `first` are 0 or 1."""

    stamp: np.ndarray
    observation: np.ndarray
    context: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    following: np.ndarray
    following_context: np.ndarray
    incident: np.ndarray
    first: np.ndarray
    proposal: np.ndarray

    def __len__(self) -> int:
        """Return N."""
        return len(self.stamp)


class LiveBuffer:
    """A folder of chunks for one contract and one kind of behaviour policy.

    Args:
        sizes: n_observation, n_context and n_action, which every chunk must have.

    Attributes:
        refused: chunks that could not be read, and why.
    """

    def __init__(self, folder: Path, sizes: tuple[int, int, int]) -> None:
        self.folder, self._sizes = folder, sizes
        self.refused: dict[str, str] = {}
        self._read: set[str] = set()
        numbers = [int(path.stem.split("_")[1]) for path in self._paths()]
        self._next = max(numbers, default=-1) + 1

    def _paths(self) -> list[Path]:
        return sorted(path for path in self.folder.glob("chunk_*.safetensors") if path.stem[6:].isdigit())

    def append(self, transitions: Sequence[LiveTransition]) -> None:
        """Write a chunk.

        Raises:
            BundleError: the folder cannot be written, or the disk is full; nothing that was there is harmed.
        """
        if not transitions:
            return
        columns = {
            name: np.array([getattr(t, name) for t in transitions], np.int64 if name == "stamp" else np.float32)
            for name in _COLUMNS
        }
        path = self.folder / f"chunk_{self._next:06d}.safetensors"
        write_whole(path, save(columns, metadata={"sizes": " ".join(map(str, self._sizes))}))
        self._next += 1

    def unread(self) -> list[Chunk]:
        """Return the chunks that were not returned before, oldest first."""
        chunks = []
        for path in self._paths():
            if path.name in self._read or path.name in self.refused:
                continue
            try:
                chunks.append(self._load(path))
                self._read.add(path.name)
            except (ValueError, OSError, SafetensorError, KeyError) as error:
                self.refused[path.name] = str(error)
        return chunks

    def _load(self, path: Path) -> Chunk:
        columns = load(path.read_bytes())
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise ValueError(f"{path}: expected a column {missing[0]!r}, found {', '.join(sorted(columns))}")
        chunk = Chunk(**{name: columns[name] for name in _COLUMNS})
        n, (n_observation, n_context, n_action) = len(chunk), self._sizes
        widths = {
            "observation": n_observation,
            "following": n_observation,
            "context": n_context,
            "following_context": n_context,
            "action": n_action,
            "proposal": n_action,
        }
        for name in _COLUMNS:
            expected = (n, widths[name]) if name in widths else (n,)
            if columns[name].shape != expected:
                raise ValueError(f"{path}: {name}: expected shape {expected}, got {columns[name].shape}")
            if not np.isfinite(columns[name]).all():
                raise ValueError(f"{path}: {name}: has values that are not finite")
        return chunk
