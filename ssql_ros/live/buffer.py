"""The learner's memory on disk: transitions in chunks, each written whole, so that a restart loses at most one.

One process appends and lets the oldest go, others may read along. Every chunk says what it was recorded from (contract,
behaviour policy, reward): what was recorded from something else is never learned from. A chunk that cannot be read is
left out and said.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load, save

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.contract import Contract
from ssql_ros.data.transitions import Reward
from ssql_ros.processes.files import write_atomically


@dataclass(frozen=True)
class Chunk:
    """N transitions, column by column, as the aligner makes them (see dataset.transition_columns).

    Attributes:
        stamp: (N,), ns, of the observation that the action answers.
        observation, next_observation: (N, n_observation).
        context, next_context: (N, n_context), what the behaviour policy knew beside them; zeros at an incident.
        action, proposal: (N, n_action), executed, and what the controller wanted.
        reward: (N,).
        incident, first: (N,), 0 or 1: I(s'), and whether what came before the step is known not to lead to it.
        number: of the chunk in its buffer.
    """

    stamp: np.ndarray
    observation: np.ndarray
    context: np.ndarray
    action: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    next_context: np.ndarray
    incident: np.ndarray
    first: np.ndarray
    proposal: np.ndarray
    number: int = -1

    def __len__(self) -> int:
        """Return N."""
        return len(self.stamp)

    @classmethod
    def joined(cls, chunks: Sequence[Chunk]) -> Chunk:
        """Return the transitions of several chunks, in their order."""
        columns: dict[str, Any] = {name: np.concatenate([getattr(one, name) for one in chunks]) for name in _COLUMNS}
        return cls(**columns)


_COLUMNS = tuple(column.name for column in dataclasses.fields(Chunk) if column.name != "number")
# Names that older folders have.
_FORMER = {"following": "next_observation", "following_context": "next_context"}


def recorded_from(contract: Contract, behaviour: BehaviourPolicy, reward: Reward) -> dict[str, Any]:
    """Return what transitions mean, in JSON's types: those that differ in it are not to be mixed."""
    starts = len(behaviour.starts())
    # With which context an episode begins is no part of b(.|s), and changes with what is learned.
    even = behaviour.with_start_weights(np.full(starts, 1.0 / starts))
    numbers = dataclasses.asdict(reward)  # type: ignore[call-overload]
    described = {
        "contract": contract.id,
        "behaviour": even.describe(),
        "reward": {"kind": type(reward).__name__, **numbers},
    }
    found: dict[str, Any] = json.loads(json.dumps(described))
    return found


def differences(there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return in words what differs between two of `recorded_from`."""
    found = []
    for key in sorted(set(there) | set(here)):
        old, new = there.get(key), here.get(key)
        if isinstance(old, dict) and isinstance(new, dict):
            found += differences(old, new, f"{prefix}{key}.")
        elif old != new:
            found.append(f"{prefix}{key} is {_short(old)} there, {_short(new)} here")
    return found


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


class LiveBuffer:
    """A folder of chunks of one contract, behaviour policy and reward.

    Args:
        sizes: n_observation, n_context and n_action, which every chunk must have.
        source: what the chunks are recorded from, see `recorded_from`.

    Attributes:
        refused: chunks that could not be read, and why.
    """

    def __init__(self, folder: Path, sizes: tuple[int, int, int], source: dict[str, Any]) -> None:
        self.folder, self._sizes, self._source = folder, sizes, source
        self.refused: dict[str, str] = {}
        self._read = -1  # number of the newest chunk that was looked at
        self._next = max((_number(path) for path in self._paths()), default=-1) + 1

    def _paths(self) -> list[Path]:
        found = (path for path in self.folder.glob("chunk_*.safetensors") if path.stem[6:].isdigit())
        return sorted(found, key=_number)

    @property
    def newest(self) -> int:
        """Return the number of the newest chunk on disk; -1: there is none."""
        return max((_number(path) for path in self._paths()), default=-1)

    def claim(self) -> None:
        """Prepare for writing: check that what is there may be mixed with what comes, and clear what a crash left.

        Raises:
            ValueError: the folder was recorded from something else; the text says what differs.
        """
        for path in self.folder.glob(".chunk_*"):
            path.unlink(missing_ok=True)
        advice = "give another folder, or what it was recorded with"
        for path in reversed(self._paths()):
            try:
                with safe_open(path, framework="np") as file:
                    source = _source_of(file.metadata())
            except (OSError, SafetensorError, ValueError):
                continue
            if source is None:
                raise ValueError(f"{path}: does not say what it was recorded from; {advice}")
            if found := differences(source, self._source):
                raise ValueError(f"{self.folder}: was recorded from something else: {'; '.join(found)}; {advice}")
            return

    def append(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Write a chunk of rows, which hold the columns of `Chunk` by name.

        Raises:
            WriteError: the folder cannot be written, or the disk is full; nothing that was there is harmed.
        """
        if not rows:
            return
        columns = {
            name: np.array([row[name] for row in rows], np.int64 if name == "stamp" else np.float32)
            for name in _COLUMNS
        }
        words = {"source": json.dumps(self._source), "sha256": _digest(columns)}
        write_atomically(self.folder / f"chunk_{self._next:06d}.safetensors", save(columns, metadata=words))
        self._next += 1

    def retire(self, limit: int) -> int:
        """Let the oldest chunks go until at most `limit` bytes are left, or one chunk; return how many went.

        Raises:
            OSError: one cannot be removed.
        """
        sizes = [(path, path.stat().st_size) for path in self._paths()]
        total, gone = sum(size for _, size in sizes), 0
        for path, size in sizes[:-1]:
            if total <= limit:
                break
            path.unlink()
            total, gone = total - size, gone + 1
        return gone

    def unread(self) -> Iterator[Chunk]:
        """Yield the chunks that were not yielded before, oldest first, one at a time in memory."""
        for path in self._paths():
            if _number(path) <= self._read:
                continue
            self._read = _number(path)
            try:
                chunk = self._load(path)
            except FileNotFoundError:
                continue  # the oldest go while they are read
            except (ValueError, OSError, SafetensorError, KeyError) as error:
                self.refused[path.name] = str(error)
                continue
            yield chunk

    def _load(self, path: Path) -> Chunk:
        data = path.read_bytes()
        columns = {_FORMER.get(name, name): values for name, values in load(data).items()}
        if missing := [name for name in _COLUMNS if name not in columns]:
            raise ValueError(f"{path}: expected a column {missing[0]!r}, found {', '.join(sorted(columns))}")
        chunk = Chunk(**{name: columns[name] for name in _COLUMNS}, number=_number(path))
        n, (n_observation, n_context, n_action) = len(chunk), self._sizes
        widths = {
            "observation": n_observation,
            "next_observation": n_observation,
            "context": n_context,
            "next_context": n_context,
            "action": n_action,
            "proposal": n_action,
        }
        for name in _COLUMNS:
            expected = (n, widths[name]) if name in widths else (n,)
            if columns[name].shape != expected:
                raise ValueError(f"{path}: {name}: expected shape {expected}, got {columns[name].shape}")
            if not np.isfinite(columns[name]).all():
                raise ValueError(f"{path}: {name}: has values that are not finite")
        words = _words(data)
        if found := differences(_source_of(words) or {}, self._source):
            raise ValueError(f"{path}: was recorded from something else: {'; '.join(found)}")
        if words.get("sha256") != _digest({name: columns[name] for name in _COLUMNS}):
            raise ValueError(f"{path}: is damaged: its numbers are not those that were written")
        return chunk


def _number(path: Path) -> int:
    return int(path.stem[6:])


def _words(data: bytes) -> dict[str, str]:
    """Return the metadata of a safetensors file that has been loaded."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    found: dict[str, str] = header.get("__metadata__", {})
    return found


def _source_of(words: Mapping[str, str] | None) -> dict[str, Any] | None:
    source = json.loads((words or {}).get("source", "null"))
    return source if isinstance(source, dict) else None


def _digest(columns: Mapping[str, np.ndarray]) -> str:
    digest = hashlib.sha256()
    for name in _COLUMNS:
        digest.update(np.ascontiguousarray(columns[name]).tobytes())
    return digest.hexdigest()
