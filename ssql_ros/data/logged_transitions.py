"""Transitions of a data set as what SSQL, CQL and IQL draw batches from: rows of a log, on the disk."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch

from ssql_ros.behaviour.policy import BehaviourPolicy
from ssql_ros.data.data_set import DataSet
from ssql_ros.data.replay import Batch

BLOCK = 4096  # rows looked at once
# First observations of episodes that are kept, to judge how b should begin.
KEPT_STARTS = 64


class LoggedTransitions:
    """Rows of a data set of transitions; where b has a context, states are observations joined with it.

    Rows whose context is not known are left out: b(.|s) is not known there. So are rows that follow into such a state,
    unless their episode ends there.

    Args:
        behaviour: b; None: it plays no part, and contexts none.
        allowed: (N,) bool, rows that may be drawn; None: all.

    Attributes:
        outside: rows whose action is outside of b's support: no choice of b, and of no promise.

    Raises:
        ValueError: a column is missing (DataSetError), the contexts are not b's, or no row is left.
    """

    def __init__(
        self, data: DataSet, behaviour: BehaviourPolicy | None = None, allowed: np.ndarray | None = None
    ) -> None:
        self._data, self.n_context = data, behaviour.n_context if behaviour is not None else 0
        if self.n_context:
            width = data["context"].shape[1] if "context" in data.names else 0
            if width != self.n_context:
                raise ValueError(
                    f"{data.path}: context: expected {self.n_context} numbers a row, as the behaviour policy has, got "
                    f"{width}; it is recorded from joint_proposals"
                )
        self.rows = np.concatenate([self._complete(block) for block in _blocks(len(data))] or [np.empty(0, int)])
        if allowed is not None:
            self.rows = self.rows[allowed[self.rows]]
        if not len(self.rows):
            raise ValueError(f"{data.path}: none of {len(data)} rows can be learned from")
        self.outside = 0
        if behaviour is not None:
            for block in self._in_blocks():
                support = behaviour.support(self.states(block).astype(float))
                self.outside += int((~support.contains(data["action"][block, np.newaxis].astype(float))).sum())

    def _complete(self, block: slice) -> np.ndarray:
        """Return the rows of a block that are complete."""
        data = self._data
        fine = np.isfinite(data["reward"][block])
        for name in ("observation", "action", "next_observation"):
            fine &= np.isfinite(data[name][block]).all(axis=1)
        if self.n_context:
            known = np.isfinite(data["next_context"][block]).all(axis=1) | data["terminal"][block]
            fine &= known & np.isfinite(data["context"][block]).all(axis=1)
        return np.flatnonzero(fine) + block.start

    def __len__(self) -> int:
        """Return the number of rows that are left."""
        return len(self.rows)

    def _in_blocks(self) -> Iterator[np.ndarray]:
        return (self.rows[block] for block in _blocks(len(self.rows)))

    def states(self, rows: np.ndarray, next_observation: bool = False) -> np.ndarray:
        """Return s, or s' (N, n_observation + n_context), of rows (N,) of the data set."""
        observation = self._data["next_observation" if next_observation else "observation"][rows]
        if not self.n_context:
            return observation
        context = self._data["next_context" if next_observation else "context"][rows]
        # Only of a state that nothing follows is it not known.
        return np.concatenate([observation, np.nan_to_num(context)], axis=1)

    def spread(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and scale of states, each (n_observation + n_context,)."""
        total = square = np.zeros(0)
        for block in self._in_blocks():
            states = self.states(block).astype(float)
            total = states.sum(axis=0) + (total if len(total) else 0.0)
            square = np.square(states).sum(axis=0) + (square if len(square) else 0.0)
        mean = total / len(self)
        # A feature that hardly moves in the log must not become huge once it does.
        return mean, np.maximum(np.sqrt(np.maximum(square / len(self) - mean**2, 0.0)), 0.02)

    def starts(self) -> np.ndarray:
        """Return the first observations (up to `KEPT_STARTS`, n_observation) of episodes."""
        firsts = [episode.start for episode in self._data.episodes()[:KEPT_STARTS]]
        return np.asarray(self._data["observation"][firsts], float)

    def draw(self, size: int, generator: torch.Generator, device: torch.device) -> Batch:
        """Return `size` transitions drawn uniformly with replacement."""
        drawn = torch.randint(len(self), (size,), generator=generator).numpy()
        # In order: neighbours on the disk are read together.
        rows, data = self.rows[np.sort(drawn)], self._data
        columns = (
            self.states(rows),
            data["action"][rows],
            data["reward"][rows],
            self.states(rows, next_observation=True),
            data["incident"][rows],
            data["terminal"][rows],
        )
        return Batch(*(torch.as_tensor(column, dtype=torch.float32).to(device) for column in columns))


def _blocks(count: int) -> list[slice]:
    return [slice(begin, min(begin + BLOCK, count)) for begin in range(0, count, BLOCK)]
