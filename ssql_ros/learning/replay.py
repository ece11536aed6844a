"""Replay: transitions of the newest steps, drawn from uniformly."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch


@dataclass(frozen=True)
class Transition:
    """One step.

    Attributes:
        observation, following: (n_observation,), s and s'.
        action: (n_action,), executed.
        incident: I(s').
        terminal: s' ends the episode for the task (incident or success), so nothing is worth anything after it;
            False where only time ran out.
    """

    observation: np.ndarray
    action: np.ndarray
    reward: float
    following: np.ndarray
    incident: bool
    terminal: bool


@dataclass(frozen=True)
class Batch:
    """N transitions: observation, following (N, n_observation), action (N, n_action), the others (N,), float32."""

    observation: torch.Tensor
    action: torch.Tensor
    reward: torch.Tensor
    following: torch.Tensor
    incident: torch.Tensor
    terminal: torch.Tensor


def joined(first: Batch, second: Batch) -> Batch:
    """Return the transitions of both."""
    pairs = zip(vars(first).values(), vars(second).values(), strict=True)
    return Batch(*(torch.cat(pair) for pair in pairs))


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
        row[n + m : -3] = transition.following
        row[-3], row[-2], row[-1] = transition.reward, transition.incident, transition.terminal
        self.added += 1

    def draw(self, size: int, generator: torch.Generator, device: torch.device) -> Batch:
        """Return `size` transitions drawn uniformly with replacement.

        Raises:
            ValueError: nothing is held.
        """
        if not len(self):
            raise ValueError("replay is empty: nothing to draw from")
        index = torch.randint(len(self), (size,), generator=generator)
        return self._batch(self._rows.index_select(0, index).to(device, non_blocking=True))

    def draw_near(self, size: int, steps: int, generator: torch.Generator, device: torch.device) -> Batch | None:
        """Return `size` transitions drawn from the last `steps` before an incident; None where there was none."""
        incidents = self._rows[: len(self), -2].nonzero()[:, 0]
        if not len(incidents):
            return None
        ends = incidents[torch.randint(len(incidents), (size,), generator=generator)]
        index = (ends - torch.randint(steps, (size,), generator=generator)).clamp_min(0)
        return self._batch(self._rows.index_select(0, index).to(device))

    def newest(self, size: int, device: torch.device) -> Batch:
        """Return the newest `size` transitions, oldest first; fewer where fewer are held."""
        index = torch.arange(self.added - min(size, len(self)), self.added) % self.capacity
        return self._batch(self._rows.index_select(0, index).to(device))

    def _batch(self, rows: torch.Tensor) -> Batch:
        n, m = self._n_observation, self._n_action
        observation, action, following, rest = rows.split([n, m, n, 3], dim=1)
        return Batch(observation, action, rest[:, 0], following, rest[:, 1], rest[:, 2])

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
