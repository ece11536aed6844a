"""RS, risk-sensitive Q-learning: the risk is a cost in the reward, at a price learned by dual ascent (baseline of SQRL
after Geibel & Wysotzki 2005). It begins from SQRL's pre-training, and does not mask.

    y = r - nu Q_safe(s, a) + gamma (1 - terminal) (min_i Qbar_i(s', a') - alpha log pi(a'|s'))
"""

from __future__ import annotations

import torch

from ssql_ros.algorithms.sac import SAC, Mask
from ssql_ros.algorithms.sqrl_finetuning import SQRLFineTuning
from ssql_ros.data.replay import Batch


class RS(SQRLFineTuning):
    """SAC with the risk in its critics' target."""

    def mask(self, step: int) -> Mask | None:
        """Return none: nothing stands between this policy and the robot."""
        return None

    def target_value(
        self, next_observation: torch.Tensor, batch: Batch, noise: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """Return y (batch,), and move nu by dual ascent on E[Q_safe] <= epsilon."""
        with torch.no_grad():
            risk = self.q_safe(self.standardise(batch.observation), batch.action)
        self.nu_optimiser.descend(self.price.loss(self.settings.epsilon - risk))
        return super().target_value(next_observation, batch, noise) - self.nu * risk

    def actor_loss(self, state: torch.Tensor, noise: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return SAC's J(pi): the risk is in the critics already."""
        return SAC.actor_loss(self, state, noise)
