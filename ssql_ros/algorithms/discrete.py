"""SSQL and DQN on finite worlds through the shared networks: Q of all actions from the number of a cell.

    SSQL   y = r + gamma (1 - terminal) lambda log sum_a b(a|s') exp(Qbar(s', a) / lambda),   b known exactly
    DQN    y = r + gamma (1 - terminal) max_a Qbar(s', a)   (Mnih et al. 2015), which is SSQL of lambda 0 and b over all

SSQL acts by b alone while it learns; DQN by its own greedy action, and by any action in a falling share of its steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.base import averaged, restore_to, state_of
from ssql_ros.algorithms.ssql import induced_log_policy, soft_value
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.networks import Ensemble, update_average

CPU = torch.device("cpu")


@dataclass(frozen=True)
class DiscreteSettings:
    """How a table's network learns.

    Attributes:
        hidden: widths of the hidden layers.
        learning_rate: of Adam.
        batch: transitions of a gradient step.
        gamma: discount of the reward.
        tau: of the average that targets follow.
        warm_up: steps before the first update; then one each step.
        final_updates: when collection is complete.
    """

    hidden: tuple[int, ...] = (64, 64)
    learning_rate: float = 1e-3
    batch: int = 64
    gamma: float = 0.95
    tau: float = 0.01
    warm_up: int = 200
    final_updates: int = 2000


@dataclass(frozen=True)
class DiscreteSSQLSettings(DiscreteSettings):
    """How SSQL learns.

    Attributes:
        temperature: lambda, in units of reward.
    """

    temperature: float = 0.01


@dataclass(frozen=True)
class DQNSettings(DiscreteSettings):
    """How DQN learns.

    Attributes:
        explore_from, explore_to: share of random actions, at first and after `explore_share` of the steps.
    """

    explore_from: float = 1.0
    explore_to: float = 0.05
    explore_share: float = 0.3
    # What is greedy in the network's own errors needs smaller steps.
    learning_rate: float = 3e-4
    final_updates: int = 1


class DiscreteQ:
    """Q, its target, and one gradient step.

    Args:
        log_b: (S, A), -inf where b is 0.
        temperature: lambda; 0: the maximum over b's support.
    """

    def __init__(self, log_b: np.ndarray, temperature: float, settings: DiscreteSettings, seed: int) -> None:
        self.settings, self.temperature = settings, temperature
        self._log_b = torch.as_tensor(log_b, dtype=torch.float32)
        n, m = log_b.shape
        self._cells = torch.eye(n)
        self.q = Ensemble((n, *settings.hidden, m), 1, torch.Generator().manual_seed(seed))
        self.target = averaged(self.q)
        self.optimiser = Adam([self.q.flat], settings.learning_rate)

    def update(
        self,
        state: torch.Tensor,
        action: torch.Tensor,
        reward: torch.Tensor,
        next_observation: torch.Tensor,
        terminal: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        """Make one gradient step on transitions (batch,): cells and actions as whole numbers; return the loss."""
        y = self.target_value(reward, next_observation, terminal)
        q = self.q(self._cells[state])[0].gather(1, action.unsqueeze(1))[:, 0]
        loss = 0.5 * (q - y).square().mean()
        self.optimiser.descend(loss)
        update_average(self.target, self.q, self.settings.tau)
        return {"critic_loss": loss.detach(), "q_mean": q.detach().mean()}

    @torch.no_grad()
    def target_value(
        self, reward: torch.Tensor, next_observation: torch.Tensor, terminal: torch.Tensor
    ) -> torch.Tensor:
        """Return y (batch,)."""
        value = soft_value(
            self.target(self._cells[next_observation])[0], self._log_b[next_observation], self.temperature
        )
        return reward + self.settings.gamma * (1.0 - terminal) * value

    @torch.no_grad()
    def table(self) -> np.ndarray:
        """Return Q (S, A)."""
        return self.q(self._cells)[0].double().numpy()

    def policy(self) -> np.ndarray:
        """Return pi* (S, A): 0 exactly where b is."""
        log_b = self._log_b.double()
        return induced_log_policy(torch.as_tensor(self.table()), log_b, self.temperature).exp().numpy()

    def _parts(self) -> dict[str, Any]:
        return {"networks": [self.q, self.target], "optimiser": self.optimiser}

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return state_of(self._parts())

    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint."""
        restore_to(self._parts(), state)


@dataclass
class CellReplay:
    """Every transition of a run, drawn from uniformly."""

    capacity: int
    added: int = 0
    rows: torch.Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        """Reserve the memory."""
        self.rows = torch.zeros(self.capacity, 5, dtype=torch.float64)

    def add(self, state: int, action: int, reward: float, next_observation: int, terminal: bool) -> None:
        """Keep one transition."""
        self.rows[self.added] = torch.tensor([state, action, reward, next_observation, terminal], dtype=torch.float64)
        self.added += 1

    def draw(self, size: int, generator: torch.Generator) -> tuple[torch.Tensor, ...]:
        """Return `size` transitions, as `DiscreteQ.update` takes them."""
        state, action, reward, next_observation, terminal = self.rows[
            torch.randint(self.added, (size,), generator=generator)
        ].unbind(dim=1)
        return state.long(), action.long(), reward.float(), next_observation.long(), terminal.float()

    def pairs(self, states: int, actions: int) -> np.ndarray:
        """Return which pairs (S, A) were seen."""
        seen = np.zeros((states, actions), bool)
        cells = self.rows[: self.added, :2].long().numpy()
        seen[cells[:, 0], cells[:, 1]] = True
        return seen
