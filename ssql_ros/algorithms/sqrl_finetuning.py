"""SQRL's fine-tuning: every action is masked, and risk has a price (Srinivasan et al. 2020, 2010.14603, algorithm 2).

    J(pi) = E [r - alpha (log pi - H) + nu (epsilon - Q_safe(s, a'))],  a' ~ pi(.|s)                            (eq. 4)

nu >= 0 and alpha by dual ascent.
"""

from __future__ import annotations

from typing import Any

import torch

from ssql_ros.algorithms.dual_ascent import Multiplier
from ssql_ros.algorithms.sac import Mask
from ssql_ros.algorithms.sqrl import SQRLPretraining
from ssql_ros.algorithms.work import Work
from ssql_ros.data.replay import Transition
from ssql_ros.nn.adam import Adam
from ssql_ros.nn.update import Update


class SQRLFineTuning(SQRLPretraining):
    """Algorithm 2: every action is masked, and the actor pays nu for its own Q_safe."""

    def _build(self) -> None:
        super()._build()
        self.price = Multiplier(self.settings.initial_nu, self.device)
        self.nu_optimiser = self._adam(self.price.log, rate=self.settings.dual_rate)
        moving = [self.critic_optimiser, self.actor_optimiser, self.nu_optimiser]
        self._update = Update(self._updated, moving, self.arithmetic)

    @property
    def nu(self) -> torch.Tensor:
        """Return the multiplier of the safety constraint (1,)."""
        return self.price.value

    def mask(self, step: int) -> Mask | None:
        """Return the mask: from the first step on."""
        self._masked = self._serving is not None
        return self._own_mask()

    def rollouts_due(self, step: int) -> list[Mask | None]:
        """Return that no extra episodes are wanted: all of fine-tuning is masked, and serves the critic too."""
        return []

    def finish(self) -> list[Work]:
        """Return that nothing is left to do: the critic is as frozen, or as fresh, as it was."""
        return []

    def observe(self, transition: Transition) -> None:
        """Learn the safety critic online, where that is wanted, from fine-tuning itself."""
        if not self.settings.online:
            return
        self.safety_replay.add(transition)
        if self.safety_replay.added % self.settings.off_policy_steps == 0:
            self._fit_safety()
            self.serve()

    def actor_loss(self, state: torch.Tensor, noise: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
        """Return -J(pi) of eq. 4 and log pi of the actions drawn (batch,); move nu by dual ascent."""
        action, log_probability = self.actor.sample(state, noise["state"])
        q = self.critics.frozen(torch.cat([state, action], dim=1))[..., 0]
        q_safe = self.q_safe(state, action)
        # E[r] of the paper is Q here, as SAC has it; alpha H is a constant of the policy's gradient.
        slack = self.settings.epsilon - q_safe
        loss = (self.alpha * log_probability - self.pessimistic(q) - self.nu * slack).mean()
        self.nu_optimiser.descend(self.price.loss(slack.detach()))
        return loss, log_probability.detach()

    def _optimisers(self) -> list[Adam]:
        return [*super()._optimisers(), self.nu_optimiser]

    def _parts(self) -> dict[str, Any]:
        return {**super()._parts(), "log_nu": self.price.log}
