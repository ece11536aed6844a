"""CQL(H): conservative Q-learning on a log, over SAC (Kumar et al. 2020, 2006.04779, eq. 4).

    J(Q_i) = 1/2 E (Q_i(s, a) - y)^2 + w E_s [log sum_a' exp Q_i(s, a') - E_{a ~ log} Q_i(s, a)]

The sum over all actions is estimated by importance sampling from uniform actions and the policy's, half each. y, the
policy and the temperature are SAC's.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ssql_ros.algorithms.sac import SAC, SACSettings
from ssql_ros.data.replay import Batch


@dataclass(frozen=True)
class CQLSettings(SACSettings):
    """How CQL learns.

    Attributes:
        conservative_weight: w, of the conservative term.
        conservative_samples: actions of either kind for each state.
        final_updates: gradient steps, when the log is complete.
    """

    conservative_weight: float = 1.0
    conservative_samples: int = 4
    final_updates: int = 20_000


class CQL(SAC):
    """SAC whose critics are pressed down where the log has nothing."""

    settings: CQLSettings

    def noise(self, count: int) -> dict[str, torch.Tensor]:
        """Return what an update draws, actions that the critics are pressed down at included."""
        rows = count * self.settings.conservative_samples
        uniform = torch.rand((rows, self.n_action), generator=self.generator, device=self.device)
        return {**super().noise(count), "drawn": self._normal(rows), "uniform": 2.0 * uniform - 1.0}

    def critic_loss(
        self, state: torch.Tensor, batch: Batch, target: torch.Tensor, noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return J(Q), summed over critics."""
        count, n_action = self.settings.conservative_samples, batch.action.shape[1]
        rows = state.repeat_interleave(count, dim=0)
        with torch.no_grad():
            drawn, log_pi = self.actor.sample(rows, noise["drawn"])
        # One pass for all: the log's actions, the policy's, uniform ones.
        states = torch.cat([state, rows, rows])
        q = self.critics(torch.cat([states, torch.cat([batch.action, drawn, noise["uniform"]])], dim=1))[..., 0]
        logged, of_policy, of_uniform = q.split([len(state), len(rows), len(rows)], dim=1)
        weighted = torch.cat(
            [
                (of_policy - log_pi).view(len(q), -1, count),
                (of_uniform + n_action * math.log(2.0)).view(len(q), -1, count),
            ],
            dim=2,
        )
        pressed = torch.logsumexp(weighted, dim=2) - math.log(2 * count) - logged
        bellman = 0.5 * (logged - target).square()
        return (bellman + self.settings.conservative_weight * pressed).sum() / len(target)
