"""IQL: implicit Q-learning on a log (Kostrikov et al. 2021, 2110.06169).

    J(V)  = E |tau - 1{u < 0}| u^2,   u = min_i Qbar_i(s, a) - V(s)
    J(Q_i) = 1/2 E (Q_i(s, a) - [r + gamma (1 - terminal) V(s')])^2
    J(pi) = -E min(exp(beta (min_i Qbar_i(s, a) - V(s))), 100) log pi(a|s)

No action but the log's is ever judged.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ssql_ros.data.replay import Batch
from ssql_ros.model.bundle import Network
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.arithmetic import Arithmetic
from ssql_ros.nn.networks import Ensemble, default_device, exported, update_average
from ssql_ros.nn.squashed_gaussian import SquashedGaussian, log_probability
from ssql_ros.nn.update import Update

# Of an action on the bound u would be infinite.
EDGE = 0.999
MOST_WEIGHT = 100.0


@dataclass(frozen=True)
class IQLSettings:
    """How IQL learns.

    Attributes:
        expectile: tau, above 0.5.
        sharpness: beta, of the advantage in the policy's weights, in 1 / reward.
        final_updates: gradient steps, when the log is complete.
    """

    expectile: float = 0.9
    sharpness: float = 3.0
    final_updates: int = 20_000
    learning_rate: float = 3e-4
    hidden: tuple[int, ...] = (256, 256)
    batch: int = 256
    gamma: float = 0.99
    tau: float = 0.005
    observation_clip: float = 10.0


class IQL:
    """Networks, and one gradient step on each for a batch.

    Args:
        mean, scale: (n_observation,), the standardisation of observations.
        seed: of the weights.
    """

    def __init__(
        self,
        mean: np.ndarray,
        scale: np.ndarray,
        n_action: int,
        settings: IQLSettings,
        seed: int,
        device: torch.device | None = None,
        precision: torch.dtype | None = None,
    ) -> None:
        self.settings, self.device = settings, device or default_device()
        self.arithmetic = Arithmetic(self.device, settings.hidden, precision)
        precision = self.arithmetic.precision
        self.mean = torch.as_tensor(mean, dtype=torch.float32, device=self.device)
        self.scale = torch.as_tensor(scale, dtype=torch.float32, device=self.device)
        weights, n, hidden = torch.Generator().manual_seed(seed), len(mean), settings.hidden
        self.critics = Ensemble((n + n_action, *hidden, 1), 2, weights, precision).to(self.device)
        self.target = copy.deepcopy(self.critics).requires_grad_(False)
        self.values = Ensemble((n, *hidden, 1), 1, weights, precision).to(self.device)
        self.actor = SquashedGaussian(n, n_action, hidden, weights, precision).to(self.device)
        parameters = [*self.critics.parameters(), *self.values.parameters(), *self.actor.parameters()]
        self.optimiser = Adam(parameters, settings.learning_rate)
        self._update = Update(self._updated, [self.optimiser], self.arithmetic)

    def standardise(self, observation: torch.Tensor) -> torch.Tensor:
        """Return observations (batch, n_observation) as the networks see them."""
        bound = self.settings.observation_clip
        return ((observation - self.mean) / self.scale).clamp(-bound, bound)

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

    def networks(self) -> dict[str, Network]:
        """Return what a bundle holds: the policy and the critics."""
        mean, scale, clip = self.mean.cpu().numpy(), self.scale.cpu().numpy(), self.settings.observation_clip
        named = {"policy": self.actor, "reward": self.critics}
        return {name: exported(ensemble, mean, scale, clip) for name, ensemble in named.items()}

    def load_networks(self, networks: dict[str, Network]) -> None:
        """Begin from a bundle, which holds no V: refused."""
        raise ValueError("IQL begins from nothing: a bundle does not hold its V")

    def state(self) -> dict[str, Any]:
        """Return everything that a checkpoint must hold."""
        return {
            "networks": [ensemble.flat for ensemble in self._ensembles()],
            "optimiser": self.optimiser.state(),
            "arithmetic": self.arithmetic.state(),
        }

    @torch.no_grad()
    def restore(self, state: dict[str, Any]) -> None:
        """Take the state of a checkpoint. Raises ValueError where it cannot be computed as it was."""
        self.arithmetic.restore(state.get("arithmetic"), self._ensembles())
        for ensemble, flat in zip(self._ensembles(), state["networks"], strict=True):
            ensemble.flat.copy_(flat)
        self.optimiser.restore(state["optimiser"])

    def _ensembles(self) -> tuple[Ensemble, ...]:
        return self.critics, self.target, self.values, self.actor
