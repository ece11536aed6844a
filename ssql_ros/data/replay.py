"""Replay: transitions of the newest steps, drawn from uniformly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch


@dataclass(frozen=True)
class Transition:
    """One step.

    Attributes:
        observation, next_observation: (n_observation,), s and s'.
        action: (n_action,), executed.
        incident: I(s').
        terminal: s' ends the episode for the task (incident or success), so nothing is worth anything after it;
            False where only time ran out.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: float
    next_observation: np.ndarray
    incident: bool
    terminal: bool


@dataclass(frozen=True)
class Batch:
    """N transitions: (next_)observation (N, n_observation), action (N, n_action), the others (N,), float32."""

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    next_observation: torch.Tensor
    incident: torch.Tensor
    terminal: torch.Tensor


@dataclass(frozen=True)
class Unrolled:
    """N stretches of what was recorded, from s_t to s_(t+k), each of its own k.

    Attributes:
        observation, action: s_t, a_t.
        next_observation: s_(t+k).
        next_action: a_(t+k), where `recorded`; else zeros.
        incident: (N,), I(s_(t+k)); there was none before.
        steps: (N,), k, at least 1.
        terminal: (N,), whether s_(t+k) ended the episode for good.
        recorded: (N,), 1 where a_(t+k) is known.
    """

    observation: torch.Tensor
    action: torch.Tensor
    next_observation: torch.Tensor
    next_action: torch.Tensor
    incident: torch.Tensor
    steps: torch.Tensor
    terminal: torch.Tensor
    recorded: torch.Tensor


Rows = TypeVar("Rows", Batch, Unrolled)


def joined(first: Rows, second: Rows) -> Rows:
    """Return the rows of both."""
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return type(first)(*(torch.cat(pair) for pair in pairs))


class Replay:
    """A ring of transitions, packed in rows of one array.

    Args:
        capacity: how many transitions it holds; older ones are overwritten.
    """

    def __init__(self, capacity: int, n_observation: int, n_action: int) -> None:
        if capacity < 1:
            raise ValueError(f"replay capacity: expected at least 1, got {capacity}")
        self.capacity, self._n_observation, self._n_action = capacity, n_observation, n_action
        # Memory is reserved by the system, and taken only as rows are written.
        self._rows = torch.empty(capacity, 2 * n_observation + n_action + 3)
        self._array = self._rows.numpy()
        self.added = 0

    def __len__(self) -> int:
        """Return how many transitions are held."""
        return min(self.added, self.capacity)

    def add(self, transition: Transition) -> None:
        """Keep one transition."""
        row, n, m = self._array[self.added % self.capacity], self._n_observation, self._n_action
        row[:n] = transition.observation
        row[n : n + m] = transition.action
        row[n + m : -3] = transition.next_observation
        row[-3], row[-2], row[-1] = transition.reward, transition.incident, transition.terminal
        self.added += 1

    def draw(self, size: int, generator: torch.Generator, device: torch.device) -> Batch:
        """Return `size` transitions drawn uniformly with replacement.

        Raises:
            ValueError: nothing is held.
        """
        return self.batch(self.drawn(size, generator), device)

    def drawn(self, size: int, generator: torch.Generator) -> torch.Tensor:
        """Return `size` rows (size,) drawn uniformly with replacement. Raises ValueError: nothing is held."""
        if not len(self):
            raise ValueError("replay is empty: nothing to draw from")
        return torch.randint(len(self), (size,), generator=generator)

    def drawn_near(self, size: int, steps: int, generator: torch.Generator) -> torch.Tensor | None:
        """Return `size` rows drawn from the last `steps` before an incident; None where there was none."""
        incidents = self._rows[: len(self), -2].nonzero()[:, 0]
        if not len(incidents):
            return None
        ends = incidents[torch.randint(len(incidents), (size,), generator=generator)]
        return (ends - torch.randint(steps, (size,), generator=generator)).clamp_min(0)

    def batch(self, index: torch.Tensor, device: torch.device) -> Batch:
        """Return the transitions of some rows."""
        return self._batch(self._rows.index_select(0, index).to(device, non_blocking=True))

    def unrolled(self, index: torch.Tensor, steps: int, device: torch.device) -> Unrolled:
        """Return what was recorded from some rows on, for `steps` steps, or up to the end of what followed."""
        last = index.clone()
        for _ in range(steps - 1):
            last = torch.where(self._goes_on(last), (last + 1) % self.capacity, last)
        begin, end = (self._batch(self._rows.index_select(0, rows)) for rows in (index, last))
        recorded = self._goes_on(last).float()
        next_observation = self._batch(self._rows.index_select(0, (last + 1) % self.capacity % len(self)))
        columns = (
            begin.observation,
            begin.action,
            end.next_observation,
            next_observation.action * recorded.unsqueeze(-1),
            end.incident,
            ((last - index) % self.capacity + 1).float(),
            end.terminal,
            recorded,
        )
        return Unrolled(*(column.to(device) for column in columns))

    def _goes_on(self, index: torch.Tensor) -> torch.Tensor:
        """Return whether the row after each belongs to the same episode."""
        n, after = self._n_observation, (index + 1) % self.capacity
        # Rows of a ring that is not yet full end where nothing was written; the newest has no row after it.
        there = (after < len(self)) & (after != self.added % self.capacity)
        ended = (self._rows[index, -2] > 0.0) | (self._rows[index, -1] > 0.0)
        left = self._rows[index, n + self._n_action : 2 * n + self._n_action]
        return there & ~ended & (left == self._rows[after % len(self), :n]).all(dim=1)

    def newest(self, size: int, device: torch.device) -> Batch:
        """Return the newest `size` transitions, oldest first; fewer where fewer are held."""
        index = torch.arange(self.added - min(size, len(self)), self.added) % self.capacity
        return self._batch(self._rows.index_select(0, index).to(device))

    def _batch(self, rows: torch.Tensor) -> Batch:
        n, m = self._n_observation, self._n_action
        observation, action, next_observation, rest = rows.split([n, m, n, 3], dim=1)
        return Batch(observation, action, rest[:, 0], next_observation, rest[:, 1], rest[:, 2])

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint must hold."""
        return {"rows": self._rows[: len(self)], "added": torch.tensor([self.added])}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take the state of a checkpoint.

        Raises:
            ValueError: it is of another size.
        """
        rows = state["rows"]
        if rows.shape[1] != self._rows.shape[1] or len(rows) > self.capacity:
            raise ValueError(
                f"replay: expected at most {self.capacity} rows of {self._rows.shape[1]}, got {tuple(rows.shape)}"
            )
        self._rows[: len(rows)] = rows
        self.added = int(state["added"])
