"""What the policy of today did: the steps of one batch, in order, and their generalised advantages."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from ssql_ros.data.replay import Transition

# tanh of anything larger is 1 to within a few roundings of float64, and has no u to go back to.
LARGEST = 1.0 - 1e-12


def generalised_advantage(
    reward: np.ndarray,
    value: np.ndarray,
    next_value: np.ndarray,
    terminal: np.ndarray,
    begins: np.ndarray,
    gamma: float,
    decay: float,
) -> np.ndarray:
    """Return A_t = sum_l (gamma decay)^l delta_(t+l), up to the end of t's episode (Schulman et al. 2016, 1506.02438).

        delta_t = r_t + gamma (1 - terminal_t) V(s'_t) - V(s_t)

    Args:
        reward, value, next_value, terminal: (T,), r_t, V(s_t), V(s'_t), whether nothing comes after s'_t. An
            episode that was cut off, by time or by the end of the batch, goes on with V(s'_t).
        begins: (T,) bool, whether step t is the first of an episode.
    """
    delta = reward + gamma * (1.0 - terminal) * next_value - value
    # What comes after the last step of an episode belongs to another one.
    goes_on = np.append(~begins[1:], False)
    advantage = np.zeros(len(delta))
    later = 0.0
    for t in reversed(range(len(delta))):
        later = delta[t] + gamma * decay * goes_on[t] * later
        advantage[t] = later
    return advantage


@dataclass(frozen=True)
class Steps:
    """T steps in the order in which they were made, float64.

    Attributes:
        observation, next_observation: (T, n_observation), s and s'.
        u: (T, n_action), what the policy drew; the action is tanh(u).
        reward, incident, terminal: (T,), r, I(s'), and whether the task ended in s'.
        begins: (T,) bool, whether a step is the first of its episode.
    """

    observation: np.ndarray
    u: np.ndarray
    reward: np.ndarray
    next_observation: np.ndarray
    incident: np.ndarray
    terminal: np.ndarray
    begins: np.ndarray

    @property
    def episodes(self) -> int:
        """Return how many episodes began here; at least 1."""
        return max(int(self.begins.sum()), 1)


class OnPolicyBuffer:
    """Steps of one policy, until there are `capacity` of them.

    Args:
        capacity: steps of a batch.
    """

    def __init__(self, capacity: int, n_observation: int, n_action: int) -> None:
        self.capacity, self._n, self._m = capacity, n_observation, n_action
        self._rows = np.zeros((capacity, 2 * n_observation + n_action + 4))
        self._held, self._begins = 0, True

    @property
    def full(self) -> bool:
        """Return whether a batch is complete."""
        return self._held == self.capacity

    def begin(self) -> None:
        """Note that the next step begins an episode."""
        self._begins = True

    def add(self, transition: Transition) -> None:
        """Keep one step. Raises ValueError where the batch is complete already."""
        if self.full:
            raise ValueError(f"on-policy batch: expected {self.capacity} steps, got one more")
        row, n, m = self._rows[self._held], self._n, self._m
        row[:n] = transition.observation
        row[n : n + m] = np.arctanh(np.clip(transition.action, -LARGEST, LARGEST))
        row[n + m : -4] = transition.next_observation
        row[-4:] = transition.reward, transition.incident, transition.terminal, self._begins
        self._held, self._begins = self._held + 1, False

    def take(self) -> Steps:
        """Return what is held, and hold nothing."""
        n, m = self._n, self._m
        rows, self._held = self._rows[: self._held].copy(), 0
        observation, u, next_observation, rest = np.split(rows, [n, n + m, 2 * n + m], axis=1)
        return Steps(observation, u, rest[:, 0], next_observation, rest[:, 1], rest[:, 2], rest[:, 3] == 1.0)

    def state(self) -> dict[str, torch.Tensor]:
        """Return what a checkpoint must hold."""
        rows = torch.from_numpy(self._rows[: self._held].copy())
        return {"rows": rows, "begins": torch.tensor([self._begins])}

    def restore(self, state: dict[str, torch.Tensor]) -> None:
        """Take the state of a checkpoint.

        Raises:
            ValueError: it is of another size.
        """
        rows = state["rows"].numpy()
        if rows.shape[1] != self._rows.shape[1] or len(rows) > self.capacity:
            expected = f"at most {self.capacity} rows of {self._rows.shape[1]}"
            raise ValueError(f"on-policy batch: expected {expected}, got {rows.shape}")
        self._held, self._begins = len(rows), bool(state["begins"])
        self._rows[: self._held] = rows
