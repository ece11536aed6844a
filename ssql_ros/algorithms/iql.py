"""IQL: implicit Q-learning on a log (Kostrikov et al. 2021, 2110.06169).

    J(V)  = E |tau - 1{u < 0}| u^2,   u = min_i Qbar_i(s, a) - V(s)
    J(Q_i) = 1/2 E (Q_i(s, a) - [r + gamma (1 - terminal) V(s')])^2
    J(pi) = -E min(exp(beta (min_i Qbar_i(s, a) - V(s))), 100) log pi(a|s)

No action but the log's is ever judged.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ssql_ros.algorithms.base import Algorithm, Settings, averaged
from ssql_ros.data.replay import Batch
from ssql_ros.model.bundle import Network
from ssql_ros.nn.networks import Ensemble, update_average
from ssql_ros.nn.squashed_gaussian import log_probability
from ssql_ros.nn.update import Update

# Of an action on the bound u would be infinite.
EDGE = 0.999
MOST_WEIGHT = 100.0


@dataclass(frozen=True)
class IQLSettings(Settings):
    """How IQL learns.

    Attributes:
        expectile: tau, above 0.5.
        sharpness: beta, of the advantage in the policy's weights, in 1 / reward.
        final_updates: gradient steps, when the log is complete.
    """

    expectile: float = 0.9
    sharpness: float = 3.0
    final_updates: int = 20_000


class IQL(Algorithm):
    """Networks, and one gradient step on each for a batch."""

    settings: IQLSettings

    def _build(self) -> None:
        n = len(self.mean)
        self.critics = self._perceptron(n + self.n_action, members=2)
        self.target = averaged(self.critics)
        self.values = self._perceptron(n)
        self.actor = self._gaussian(n)
        self.optimiser = self._adam(self.critics, self.values, self.actor)
        self._update = Update(self._updated, [self.optimiser], self.arithmetic)

    def squashed_from(self, batch: Batch) -> torch.Tensor:
        """Return u (batch, n_action), of which the log's actions are the hyperbolic tangent."""
        return torch.atanh(batch.action.clamp(-EDGE, EDGE))

    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Make one gradient step on values, critics and policy; return their losses."""
        return self._update(batch, self.squashed_from(batch))

    def _updated(self, batch: Batch, u: torch.Tensor) -> dict[str, torch.Tensor]:
        s = self.settings
        state, next_observation = self.standardise(batch.observation), self.standardise(batch.next_observation)
        pair = torch.cat([state, batch.action], dim=1)
        with torch.no_grad():
            judged = self.target(pair)[..., 0].amin(dim=0)
            target = batch.reward + s.gamma * (1.0 - batch.terminal) * self.values(next_observation)[0, :, 0]
        advantage = judged - self.values(state)[0, :, 0]
        # With the sign of the advantage: below, an overestimate of V costs little.
        value_loss = (torch.where(advantage > 0.0, s.expectile, 1.0 - s.expectile) * advantage.square()).mean()
        critic_loss = 0.5 * (self.critics(pair)[..., 0] - target).square().sum() / len(target)
        weights = (s.sharpness * advantage.detach()).exp().clamp_max(MOST_WEIGHT)
        mean, log_std = self.actor.distribution(state)
        actor_loss = -(weights * log_probability(u, (u - mean) * (-log_std).exp(), log_std)).mean()
        # The three have no parameter in common: one step serves all.
        self.optimiser.descend(value_loss + critic_loss + actor_loss)
        update_average(self.target, self.critics, s.tau)
        return {
            "value_loss": value_loss.detach(),
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
        }

    def _served(self) -> dict[str, Ensemble]:
        return {"policy": self.actor, "reward": self.critics}

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from a bundle, which holds no V: refused."""
        raise ValueError("IQL begins from nothing: a bundle does not hold its V")

    def _parts(self) -> dict[str, Any]:
        return {"networks": [self.critics, self.target, self.values, self.actor], "optimiser": self.optimiser}
