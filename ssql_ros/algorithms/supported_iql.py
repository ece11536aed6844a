"""IQL whose policy keeps to a behaviour policy's support: a Gaussian squashed into the box that b supports.

Values and critics are IQL's. The policy is fitted to the log's actions where they lie in that box, so that, unlike
IQL's own, it never leaves it, and is served as SSQL's is. A state is the observation joined with b's context.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from ssql_ros.algorithms.base import BehaviourAlgorithm
from ssql_ros.algorithms.iql import EDGE, IQL
from ssql_ros.data.replay import Batch


class SupportedIQL(BehaviourAlgorithm, IQL):
    """IQL with a supported policy."""

    kind = "supported_gaussian"

    def squashed_from(self, batch: Batch) -> torch.Tensor:
        """Return u (batch, n_action) of the log's actions in the box of b, 0 in its middle."""
        edges = self.behaviour.support(batch.observation.double().cpu().numpy()).hull()
        low, high = (self._on_device(edge) for edge in edges)
        inside = 2.0 * (batch.action - low) / (high - low).clamp_min(1e-6) - 1.0
        # What a shield put in the place of a proposal may lie outside: the nearest that the policy can do stands in.
        return torch.atanh(inside.clamp(-EDGE, EDGE))

    @torch.no_grad()
    def q(self, states: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
        """Return Q (critics, batch) of states (batch, n_state) and actions (batch, n_action)."""
        return self.critics(torch.cat([self.standardise(states), actions], dim=1))[..., 0]

    @torch.no_grad()
    def target_value(self, batch: Batch) -> torch.Tensor:
        """Return r + gamma V(s') (batch,)."""
        value = self.values(self.standardise(batch.next_observation))[0, :, 0]
        return batch.reward + self.settings.gamma * (1.0 - batch.terminal) * value

    @torch.no_grad()
    def drawn(self, state: torch.Tensor) -> torch.Tensor:
        """Return a draw of the policy in each standardised state (batch, n_action), squashed to [-1, 1]."""
        return self.actor.sample(state, self._normal(len(state)))[0]

    def extract(self, batch: Batch) -> dict[str, torch.Tensor]:
        """Do nothing: the policy is learned beside the critics."""
        return {}

    def start_weights(self, observations: np.ndarray) -> np.ndarray:
        """Return b's own probabilities (M,) of how an episode begins."""
        return self.behaviour.start_weights()

    def _parts(self) -> dict[str, Any]:
        return {**super()._parts(), "generator": self.generator, "rng": self.rng}
